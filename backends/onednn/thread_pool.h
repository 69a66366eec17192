// The compute threads of one model. Work is claimed in chunks, so that a thread
// that is held up costs a chunk and not a half.
//
//   ThreadPool pool(2);
//   pool.Run(num_groups, 6, [&](int begin, int end, int worker) { ... });
//
// Each worker owns a consecutive range of the units, and takes from the ranges
// of others when its own is done: it streams through memory in one direction,
// and through the same memory in every step.
#ifndef MILLRACE_BACKENDS_ONEDNN_THREAD_POOL_H_
#define MILLRACE_BACKENDS_ONEDNN_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace millrace::backends::onednn {

// Not thread-safe: Run is called by one thread, which works as worker 0.
//
// Run waits for those alone who have begun to work: a thread that the system
// has not scheduled in time takes no part, as when other processes want the
// cores. Idle threads spin for some microseconds, then yield, then sleep; Run's
// end spins and then sleeps. Run allocates nothing.
class ThreadPool {
 public:
  // REQUIRES: num_threads >= 1, the caller's included.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls work(begin, end, worker) for ranges of at most `chunk` units that
  // together are [0, n), each once, at most one at a time per worker; returns
  // when all are done.
  // REQUIRES: n >= 0, chunk >= 1.
  using Work = absl::FunctionRef<void(int begin, int end, int worker)>;
  void Run(int n, int chunk, Work work);

 private:
  // A range of units, claimed from its front. One cache line each.
  struct alignas(64) Range {
    std::atomic<int32_t> next{0};
    int32_t end = 0;
  };

  void WorkerLoop(int worker);
  bool Enter();
  void CloseGate();
  void Claim(int worker);
  void WaitForEpoch(int32_t seen) const;

  std::unique_ptr<Range[]> ranges_;
  const Work* work_ = nullptr;
  int chunk_ = 1;
  // Counts runs; workers sleep on it.
  alignas(64) std::atomic<int32_t> epoch_{0};
  // While kOpen is set, workers may enter; the rest counts those inside. What
  // a run sets up is written while the gate is shut and nobody inside.
  static constexpr int32_t kOpen = 1 << 30;
  alignas(64) std::atomic<int32_t> gate_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_THREAD_POOL_H_
