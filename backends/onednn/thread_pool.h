// The compute threads of one model. Work is claimed in chunks, so that a thread
// that is held up costs a chunk and not a half.
//
//   ThreadPool pool(2);
//   pool.Run(num_groups, 6, [&](int begin, int end, int worker) { ... });
//
// Each worker owns a consecutive range of the units, and takes from the ranges
// of others when its own is done: it streams through memory in one direction,
// and through the same memory in every step.
//
// What a straggler has begun can be stolen from it too, while it says so: a
// thread that loses its core in the midst of a chunk comes back milliseconds
// later, in which a step could be done. See BeginStealable.
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
// cores. Whoever waits spins for some microseconds, then sleeps. A worker that
// finds itself on the caller's core moves to another. Run allocates nothing.
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

  // Runs that all threads were called to: their number is what a step pays for
  // in waiting.
  int64_t num_shared_runs() const { return num_shared_runs_; }

  // Both are called from within `work`, in turns. From BeginStealable on, the
  // units from `unit` to the end of its range may be given to worker 0, as a
  // range of their own, if there is nothing else to do. Until EndStealable the
  // caller writes only what is this worker's alone, and reads only that and
  // what no run changes or frees: others may be in a later run.
  void BeginStealable(int unit, int worker);
  // Whether the units are still the caller's. If not, it returns from `work` at
  // once and looks at nothing that belongs to the run, captures included.
  [[nodiscard]] bool EndStealable(int worker);
  // Whether the worker has been stolen from and has not noticed yet. Called by
  // the thread that calls Run, between runs.
  bool Straggles(int worker) const;

 private:
  // What a worker has begun. One cache line each.
  struct alignas(64) Begun {
    enum State : int32_t { kOwn, kStealable, kStolen };
    std::atomic<int32_t> state{kOwn};
    int32_t unit = 0;  // the first that is not finished
    int32_t end = 0;
  };

  // A range of units, claimed from its front. One cache line each.
  struct alignas(64) Range {
    std::atomic<int32_t> next{0};
    int32_t end = 0;
  };

  void WorkerLoop(int worker);
  bool Enter();
  void CloseGate();
  // False if the worker was stolen from.
  bool Claim(int worker);
  // Whether there was anything to steal, which is then done.
  bool Steal();
  void WaitForEpoch(int32_t seen) const;

  std::unique_ptr<Range[]> ranges_;
  std::unique_ptr<Begun[]> begun_;
  const Work* work_ = nullptr;
  int chunk_ = 1;
  int64_t num_shared_runs_ = 0;
  std::atomic<int> core_{-1};  // where Run was called
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
