// AdmissionQueue gives requests their memory, first come first served.
//
// A request whose memory is free starts at once. Others wait until it is, at
// most `timeout`; when `max_waiting` wait already, one more is refused. A
// session never waits here: it is refused instead.
//
//   queue.Submit(options, client, [](auto sequence) { ... });
//   queue.Tick();   // a few times a second: memory may have come free
//
// Lives on the engine thread; `waiting` alone is for any thread.
#ifndef MILLRACE_SERVICES_ONESHOT_ADMISSION_QUEUE_H_
#define MILLRACE_SERVICES_ONESHOT_ADMISSION_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cache/cache_manager.h"
#include "services/engine/engine.h"

namespace millrace::oneshot {

class AdmissionQueue {
 public:
  using Admitted =
      std::function<void(absl::StatusOr<std::unique_ptr<engine::Sequence>>)>;

  struct Options {
    int max_waiting = 64;
    absl::Duration timeout = absl::Seconds(30);
  };

  // `engine` is borrowed.
  AdmissionQueue(engine::Engine* engine, const Options& options,
                 std::function<absl::Time()> now = absl::Now);

  // Calls back once: now, or from Tick, with the sequence, KV_BUDGET if memory
  // does not suffice or did not come free in time, QUEUE_FULL, or DRAINING.
  // `client` is borrowed and outlives the sequence, or the ticket's Cancel.
  uint64_t Submit(const cache::SequenceOptions& options,
                  engine::SequenceClient* client, Admitted admitted);

  // No call back for this one any more. Ignores one that was called back.
  void Cancel(uint64_t ticket);

  // Starts who can start, and refuses who has waited too long.
  void Tick();

  // Refuses whoever comes from now on, and those that wait.
  void StartDrain();

  int waiting() const { return num_waiting_; }

 private:
  struct Waiting {
    uint64_t ticket;
    cache::SequenceOptions options;
    engine::SequenceClient* client;
    Admitted admitted;
    absl::Time deadline;
  };

  absl::Status NeverFits(const cache::SequenceOptions& options) const;

  engine::Engine* const engine_;
  const Options options_;
  const std::function<absl::Time()> now_;
  std::deque<Waiting> waiting_;
  std::atomic<int> num_waiting_ = 0;
  uint64_t next_ticket_ = 1;
  bool draining_ = false;
};

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_ADMISSION_QUEUE_H_
