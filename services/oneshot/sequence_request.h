// SequenceRequest is the life that all requests share: it waits for memory,
// holds one sequence, and lets go of it.
//
//   Start     counted in ActiveRequests, waits in the AdmissionQueue
//   admitted  the client is told, then Begin; or told why not, and that is all
//   Release   its work is done, or it was cancelled: memory goes back
//
// A kind of request derives from it, and says what it does with the sequence.
// It has a static Start of its own, as requests are always held by shared_ptr:
//
//   std::shared_ptr<Scoring> scoring(new Scoring(...));
//   SequenceRequest::Start(scoring);
//
// A request keeps itself alive while it waits or its sequence is open. All of
// it runs on the engine thread, but Start, Cancel, Drain and Post.
#ifndef MILLRACE_SERVICES_ONESHOT_SEQUENCE_REQUEST_H_
#define MILLRACE_SERVICES_ONESHOT_SEQUENCE_REQUEST_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cache/cache_policy.h"
#include "services/engine/engine.h"
#include "services/oneshot/active_requests.h"
#include "services/oneshot/admission_queue.h"
#include "services/session/event.h"
#include "services/session/event_log.h"
#include "services/text/tokenizer.h"

namespace millrace::oneshot {

// What requests share; borrowed, outlives them.
struct Dependencies {
  engine::Engine* engine = nullptr;
  AdmissionQueue* queue = nullptr;
  ActiveRequests* active = nullptr;
  const text::Tokenizer* tokenizer = nullptr;
  session::EventLog::Limits log;
  std::function<absl::Time()> now = absl::Now;
  // Told every event, with the request's id and policy; for metrics.
  std::function<void(const std::string& id, absl::string_view policy,
                     const session::EventBody& event)>
      on_event;
};

class SequenceRequest : public engine::SequenceClient,
                        public Request,
                        public std::enable_shared_from_this<SequenceRequest> {
 public:
  // Whether memory was found, or why not; on the engine thread.
  using Admitted = std::function<void(absl::Status)>;

  // Ends it at once, without an event. Any thread; idempotent.
  void Cancel();

  // Ends it with FinishDrained if its sequence is open; one that waits is
  // refused by the queue. Any thread.
  void Drain() final;

 protected:
  // `id` is for on_event. `admitted` is called once, unless Cancel comes
  // before; it may hold the request, which lets go of it then.
  SequenceRequest(const Dependencies& deps, std::string id,
                  std::shared_ptr<const cache::CachePolicy> policy,
                  Admitted admitted);

  // Any thread; once.
  static void Start(const std::shared_ptr<SequenceRequest>& request);

  // ---- What a kind of request says ----

  // Refuses what no memory can help.
  virtual absl::Status CheckFits() const { return absl::OkStatus(); }
  // The sequence is open, and the client knows.
  virtual void Begin() = 0;
  // The server cannot wait any longer: tells the client what is done, and
  // releases.
  virtual void FinishDrained() = 0;

  // ---- What it works with ----

  // Its end: whatever comes later is ignored. The request may be gone on
  // return.
  void Release();
  // Runs `task` on the engine thread and keeps the request alive until then.
  // Any thread.
  void Post(std::function<void()> task);
  // Tells `on_event`.
  void Observe(const session::EventBody& event) const;

  // Null before Begin and after Release.
  engine::Sequence* sequence() const { return sequence_.get(); }
  const Dependencies& deps() const { return deps_; }
  const cache::CachePolicy& policy() const { return *policy_; }
  absl::Time requested() const { return requested_; }
  // How long it waited for memory.
  absl::Duration queued() const { return started_ - requested_; }

 private:
  void Enqueue();
  void OnAdmitted(absl::StatusOr<std::unique_ptr<engine::Sequence>> sequence);
  void Refuse(const absl::Status& status);
  void Answer(const absl::Status& status);

  const Dependencies deps_;
  const std::string id_;
  const std::shared_ptr<const cache::CachePolicy> policy_;
  Admitted admitted_;
  std::unique_ptr<engine::Sequence> sequence_;
  std::shared_ptr<SequenceRequest> self_;  // while it waits or is open
  uint64_t ticket_ = 0;                    // of the queue
  bool over_ = false;
  const absl::Time requested_;
  absl::Time started_;
};

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_SEQUENCE_REQUEST_H_
