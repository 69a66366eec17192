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

// Worker 1 begins one of two units and is held up until Release is called.
class StragglerTest : public testing::Test {
 protected:
  // Worker 0 begins when worker 1 has.
  void Run() {
    pool_.Run(2, 1, [this](int begin, int, int worker) {
      worker == 0 ? WorkAsCaller(begin) : WorkAsStraggler(begin);
    });
  }

  void WorkAsCaller(int unit) {
    began_.wait(false);
    done_by_caller_.push_back(unit);
  }

  void WorkAsStraggler(int unit) {
    if (stealable_) pool_.BeginStealable(unit, 1);
    began_ = true;
    began_.notify_one();
    if (stealable_) {
      released_.wait(false);
      kept_ = pool_.EndStealable(1);
    } else {
      done_by_straggler_ = unit;
    }
  }

  void Release() {
    released_ = true;
    released_.notify_one();
  }

  // Runs until worker 1 takes part once more.
  void AwaitStraggler() {
    std::atomic<bool> seen{false};
    while (!seen) {
      pool_.Run(2, 1, [&](int, int, int worker) {
        if (worker == 1) seen = true;
      });
    }
  }

  ThreadPool pool_{2};
  bool stealable_ = true;
  std::vector<int> done_by_caller_;
  int done_by_straggler_ = -1;
  std::atomic<bool> began_{false}, released_{false};
  std::atomic<bool> kept_{true};
};

TEST_F(StragglerTest, WhatItHasBegunIsDoneByTheCaller) {
  Run();  // would not end without
  EXPECT_EQ(done_by_caller_, (std::vector{0, 1}));
  EXPECT_TRUE(pool_.Straggles(1));
  Release();
  AwaitStraggler();
  EXPECT_FALSE(kept_);
  EXPECT_FALSE(pool_.Straggles(1));
}

TEST_F(StragglerTest, RunsGoOnWithoutIt) {
  Run();
  EXPECT_EQ(Visits(pool_, 1000, 3), std::vector<int>(1000, 1));
  Release();
  EXPECT_EQ(Visits(pool_, 1000, 3), std::vector<int>(1000, 1));
}

TEST_F(StragglerTest, KeepsWhatItDidNotOffer) {
  stealable_ = false;
  Run();
  EXPECT_EQ(done_by_caller_, std::vector{0});
  EXPECT_EQ(done_by_straggler_, 1);
}

TEST_F(StragglerTest, MayBeLateWhenThePoolEnds) {
  Run();
  Release();
}

TEST(ThreadPoolTest, StolenUnitsAreDoneOnce) {
  ThreadPool pool(5);  // more than there are cores: some are always late
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::atomic<int>> visits(40);
    pool.Run(40, 4, [&pool, &visits](int begin, int end, int worker) {
      // Not through captures while units are stealable.
      ThreadPool& own_pool = pool;
      std::atomic<int>* const own_visits = visits.data();
      for (int unit = begin; unit < end; ++unit) {
        own_pool.BeginStealable(unit, worker);
        if (!own_pool.EndStealable(worker)) return;
        own_visits[unit].fetch_add(1);
      }
    });
    EXPECT_EQ(std::vector<int>(visits.begin(), visits.end()),
              std::vector<int>(40, 1));
  }
}

TEST(ThreadPoolTest, EndsWithoutEverHavingRun) { ThreadPool pool(4); }

}  // namespace
}  // namespace millrace::backends::onednn
