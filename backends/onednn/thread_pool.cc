#include "backends/onednn/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace millrace::backends::onednn {
namespace {

// A pause is some 40 to 140 cycles. 5 to 15 microseconds, longer than threads
// wait for one another at the end of a phase:
constexpr int kSpinsForStragglers = 300;
// 20 to 60 microseconds, longer than the gap between two steps. Idle workers do
// not yield: who wants the core then has it for milliseconds, and a step goes
// by.
constexpr int kSpinsForWork = 1000;

void Pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

// Moves this thread to another core, if it may run on one. Two threads that
// share a core take turns of milliseconds, and the system, which sees two busy
// cores where a stranger is busy on the other, leaves them there.
void LeaveCore(int core) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(core, &others);
  if (CPU_COUNT(&others) == 0) return;
  sched_setaffinity(0, sizeof others, &others);
  sched_setaffinity(0, sizeof allowed, &allowed);
}

}  // namespace

ThreadPool::ThreadPool(int num_threads)
    : ranges_(std::make_unique<Range[]>(num_threads)),
      begun_(std::make_unique<Begun[]>(num_threads)) {
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
  ++num_shared_runs_;
  core_.store(sched_getcpu(), std::memory_order_relaxed);
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
    if (i < kSpinsForStragglers) {
      Pause();
    } else if (!Steal()) {
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

bool ThreadPool::Steal() {
  bool stolen = false;
  for (int worker = 1; worker < num_threads(); ++worker) {
    Begun& begun = begun_[worker];
    int32_t state = Begun::kStealable;
    if (!begun.state.compare_exchange_strong(state, Begun::kStolen,
                                             std::memory_order_acquire,
                                             std::memory_order_relaxed)) {
      continue;
    }
    gate_.fetch_sub(1, std::memory_order_relaxed);  // it will not leave itself
    (*work_)(begun.unit, begun.end, 0);
    stolen = true;
  }
  return stolen;
}

void ThreadPool::BeginStealable(int unit, int worker) {
  if (worker == 0) return;
  begun_[worker].unit = unit;
  begun_[worker].state.store(Begun::kStealable, std::memory_order_release);
}

bool ThreadPool::EndStealable(int worker) {
  if (worker == 0) return true;
  int32_t state = Begun::kStealable;
  return begun_[worker].state.compare_exchange_strong(
      state, Begun::kOwn, std::memory_order_relaxed);
}

bool ThreadPool::Straggles(int worker) const {
  return begun_[worker].state.load(std::memory_order_acquire) == Begun::kStolen;
}

bool ThreadPool::Claim(int worker) {
  const int threads = num_threads();
  for (int i = 0; i < threads; ++i) {
    Range& range = ranges_[(worker + i) % threads];
    while (range.next.load(std::memory_order_relaxed) < range.end) {
      const int begin = range.next.fetch_add(chunk_, std::memory_order_relaxed);
      if (begin >= range.end) break;
      const int end = std::min(begin + chunk_, int{range.end});
      begun_[worker].end = end;
      (*work_)(begin, end, worker);
      if (Straggles(worker)) return false;
    }
  }
  return true;
}

void ThreadPool::WaitForEpoch(int32_t seen) const {
  for (int i = 0; i < kSpinsForWork; ++i) {
    if (epoch_.load(std::memory_order_acquire) != seen) return;
    Pause();
  }
  epoch_.wait(seen, std::memory_order_acquire);
}

void ThreadPool::WorkerLoop(int worker) {
  for (int32_t seen = 0;;) {
    WaitForEpoch(seen);
    seen = epoch_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    const int core = sched_getcpu();
    if (core == core_.load(std::memory_order_relaxed)) LeaveCore(core);
    if (!Enter()) continue;
    if (!Claim(worker)) {
      begun_[worker].state.store(Begun::kOwn, std::memory_order_release);
      continue;
    }
    if (gate_.fetch_sub(1, std::memory_order_release) == 1) {
      gate_.notify_one();
    }
  }
}

}  // namespace millrace::backends::onednn
