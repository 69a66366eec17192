#include "backends/onednn/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace millrace::backends::onednn {
namespace {

// How often each unit was worked on.
std::vector<int> Visits(ThreadPool& pool, int n, int chunk) {
  std::vector<std::atomic<int>> visits(n);
  pool.Run(n, chunk, [&](int begin, int end, int worker) {
    EXPECT_LE(end - begin, chunk);
    EXPECT_LT(worker, pool.num_threads());
    for (int i = begin; i < end; ++i) visits[i].fetch_add(1);
  });
  return std::vector<int>(visits.begin(), visits.end());
}

TEST(ThreadPoolTest, DoesEveryUnitOnce) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    for (const int n : {0, 1, 2, 7, 64, 1000}) {
      for (const int chunk : {1, 3, 64}) {
        EXPECT_EQ(Visits(pool, n, chunk), std::vector<int>(n, 1))
            << threads << " threads, " << n << " units by " << chunk;
      }
    }
  }
}

TEST(ThreadPoolTest, SeesWhatTheRunBeforeWrote) {
  ThreadPool pool(3);
  std::vector<int> values(97, 0);
  for (int round = 1; round <= 2000; ++round) {
    pool.Run(97, 4, [&](int begin, int end, int) {
      for (int i = begin; i < end; ++i) {
        EXPECT_EQ(values[i], round - 1);
        values[i] = round;
      }
    });
    EXPECT_EQ(std::count(values.begin(), values.end(), round), 97);
  }
}

TEST(ThreadPoolTest, RunsOnOneWorkerAtATimePerRange) {
  ThreadPool pool(4);
  std::vector<std::atomic<bool>> busy(4);
  pool.Run(400, 1, [&](int, int, int worker) {
    EXPECT_FALSE(busy[worker].exchange(true));
    busy[worker].store(false);
  });
}

TEST(ThreadPoolTest, EndsWithoutEverHavingRun) { ThreadPool pool(4); }

}  // namespace
}  // namespace millrace::backends::onednn
