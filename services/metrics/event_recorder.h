// EventRecorder turns what sessions and requests tell their clients into
// metrics, so that both say the same.
//
//   recorder.OnEvent(session_id, "sinks", event);   // as it is appended
//
// Keeps a few numbers per open session, never text. Thread-safe.
#ifndef MILLRACE_SERVICES_METRICS_EVENT_RECORDER_H_
#define MILLRACE_SERVICES_METRICS_EVENT_RECORDER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/metrics/metrics.h"
#include "services/session/event.h"

namespace millrace::metrics {

// "max_tokens".
absl::string_view ReasonLabel(engine::FinishReason reason);

class EventRecorder {
 public:
  // `metrics` is borrowed.
  explicit EventRecorder(Metrics* metrics,
                         std::function<absl::Time()> now = absl::Now)
      : metrics_(metrics), now_(std::move(now)) {}

  // An event of the session or request `id`. `Closed` forgets the id.
  void OnEvent(const std::string& id, absl::string_view policy,
               const session::EventBody& event);

  // A request that is no session is over: forgets the id. If its turn still
  // runs, no event told the end: it counts as `reason`, "cancelled" or
  // "deadline".
  void OnOver(const std::string& id, absl::string_view reason);

  // Turns that have started and not finished.
  int64_t running_turns() const;

 private:
  struct State {
    std::string policy;
    absl::Time opened;
    absl::Time last_output = absl::InfinitePast();
    bool turn_running = false;
  };

  void On(State& state, const session::Opened& event);
  void On(State& state, const session::InputAccepted& event);
  void On(State& state, const session::TurnStarted& event);
  void On(State& state, const session::Output& event);
  void On(State& state, const session::TurnFinished& event);
  void On(State& state, const session::CacheUpdated& event);
  void On(State& state, const session::Closed& event);
  template <typename Other>
  void On(State&, const Other&) {}

  Metrics* const metrics_;
  const std::function<absl::Time()> now_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, State> states_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace::metrics

#endif  // MILLRACE_SERVICES_METRICS_EVENT_RECORDER_H_
