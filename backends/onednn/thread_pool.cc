#include "backends/onednn/thread_pool.h"

#include <algorithm>

namespace millrace::backends::onednn {
namespace {

// A pause is some 40 to 140 cycles: so many are 5 to 15 microseconds, longer
// than threads wait for one another at the end of a phase.
constexpr int kSpins = 300;
// Yields before an idle worker sleeps: well above a phase, below a step.
constexpr int kYields = 200;

void Pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int num_threads)
    : ranges_(std::make_unique<Range[]>(num_threads)) {
  for (int worker = 1; worker < num_threads; ++worker) {
    workers_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int n, int chunk, Work work) {
  const int threads = num_threads();
  if (threads == 1 || n <= chunk) {
    for (int begin = 0; begin < n; begin += chunk) {
      work(begin, std::min(n, begin + chunk), 0);
    }
    return;
  }
  // Borders at whole chunks: no worker is left with a crumb of its own.
  const int chunks = (n + chunk - 1) / chunk;
  for (int i = 0; i < threads; ++i) {
    const auto border = [&](int64_t part) {
      return static_cast<int>(
          std::min<int64_t>(n, chunks * part / threads * chunk));
    };
    ranges_[i].next.store(border(i), std::memory_order_relaxed);
    ranges_[i].end = border(i + 1);
  }
  work_ = &work;
  chunk_ = chunk;
  gate_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  Claim(0);
  CloseGate();
}

void ThreadPool::CloseGate() {
  gate_.fetch_and(~kOpen, std::memory_order_relaxed);
  for (int i = 0;; ++i) {
    const int32_t inside = gate_.load(std::memory_order_acquire);
    if (inside == 0) return;
    if (i < kSpins) {
      Pause();
    } else {
      // Frees this core for the one inside, should it have lost its own.
      gate_.wait(inside, std::memory_order_acquire);
    }
  }
}

bool ThreadPool::Enter() {
  int32_t gate = gate_.load(std::memory_order_relaxed);
  while ((gate & kOpen) != 0) {
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire,
                                    std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

void ThreadPool::Claim(int worker) {
  const int threads = num_threads();
  for (int i = 0; i < threads; ++i) {
    Range& range = ranges_[(worker + i) % threads];
    while (range.next.load(std::memory_order_relaxed) < range.end) {
      const int begin = range.next.fetch_add(chunk_, std::memory_order_relaxed);
      if (begin >= range.end) break;
      (*work_)(begin, std::min(begin + chunk_, int{range.end}), worker);
    }
  }
}

void ThreadPool::WaitForEpoch(int32_t seen) const {
  for (int i = 0; i < kSpins; ++i) {
    if (epoch_.load(std::memory_order_acquire) != seen) return;
    Pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (epoch_.load(std::memory_order_acquire) != seen) return;
    std::this_thread::yield();
  }
  epoch_.wait(seen, std::memory_order_acquire);
}

void ThreadPool::WorkerLoop(int worker) {
  for (int32_t seen = 0;;) {
    WaitForEpoch(seen);
    seen = epoch_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    if (!Enter()) continue;
    Claim(worker);
    if (gate_.fetch_sub(1, std::memory_order_release) == 1) {
      gate_.notify_one();
    }
  }
}

}  // namespace millrace::backends::onednn
