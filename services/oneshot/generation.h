// Generation writes after a prompt: one sequence, one turn, no session.
//
//   auto generation = Generation::Start(deps, request, [](absl::Status s) {
//     ...  // admitted, or why not; engine thread
//   });
//   generation->log().Take();      // Output, CacheUpdated, TurnFinished
//   generation->Cancel();          // blocks go back, no later step has the row
//
// Everything but Start, log and Cancel runs on the engine thread. It keeps
// itself alive while its sequence is open.
#ifndef MILLRACE_SERVICES_ONESHOT_GENERATION_H_
#define MILLRACE_SERVICES_ONESHOT_GENERATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cache/policies/registry.h"
#include "services/engine/engine.h"
#include "services/engine/turn.h"
#include "services/oneshot/active_requests.h"
#include "services/oneshot/admission_queue.h"
#include "services/session/cache_reporter.h"
#include "services/session/event_log.h"

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

struct GenerationRequest {
  std::string id;               // for on_event; unique among open requests
  std::vector<int32_t> prompt;  // at least one token
  cache::MadePolicy policy;
  engine::GenerationOptions options;
};

class Generation : public engine::SequenceClient,
                   public Request,
                   public std::enable_shared_from_this<Generation> {
 public:
  using Admitted = std::function<void(absl::Status)>;

  // Refuses a prompt that the policy cannot hold with CACHE_FULL; otherwise
  // waits for memory. `admitted` is called once, unless Cancel comes before.
  static std::shared_ptr<Generation> Start(const Dependencies& deps,
                                           GenerationRequest request,
                                           Admitted admitted);

  // Output and CacheUpdated, then one TurnFinished, the last.
  session::EventLog& log() { return log_; }

  // Ends it at once, without an event. Any thread; idempotent.
  void Cancel();

  // Finishes with kDrained.
  void Drain() override;

  void OnRows(int64_t first, int64_t count,
              absl::Span<const float> logits) override;
  void OnError(const absl::Status& status) override;

 private:
  Generation(const Dependencies& deps, GenerationRequest request,
             Admitted admitted);

  void Enqueue();
  void OnAdmitted(absl::StatusOr<std::unique_ptr<engine::Sequence>> sequence);
  void StartTurn();
  void Emit(session::EventBody event);
  void EmitOutput(const engine::TurnStep& step);
  void Report(int64_t length);
  void PauseWhileFull();
  void Finish(engine::FinishReason reason, const absl::Status& error,
              std::optional<engine::StopMatch> match = std::nullopt);
  void Answer(const absl::Status& status);
  void Release();
  session::Usage CurrentUsage() const;

  const Dependencies deps_;
  const GenerationRequest request_;
  Admitted admitted_;
  session::EventLog log_;
  session::CacheReporter reporter_;
  engine::RecentTokens recent_;
  std::unique_ptr<engine::Turn> turn_;
  std::unique_ptr<engine::Sequence> sequence_;
  std::shared_ptr<Generation> self_;  // while the sequence is open or waits
  uint64_t ticket_ = 0;
  bool over_ = false;
  int64_t length_ = 0;  // tokens of the text, the newest written included
  int64_t peak_resident_ = 0;
  const absl::Time requested_;
  absl::Time started_, first_token_, last_token_;
};

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_GENERATION_H_
