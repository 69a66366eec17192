// Generation writes after a prompt: one sequence, one turn, no session.
//
//   auto generation = Generation::Start(deps, request, [](absl::Status s) {
//     ...  // admitted, or why not; engine thread
//   });
//   generation->log().Take();      // Output, CacheUpdated, TurnFinished
//   generation->Cancel();          // blocks go back, no later step has the row
//
// Everything but Start, log, Cancel and Drain runs on the engine thread.
#ifndef MILLRACE_SERVICES_ONESHOT_GENERATION_H_
#define MILLRACE_SERVICES_ONESHOT_GENERATION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cache/policies/registry.h"
#include "services/engine/sampling/recent_tokens.h"
#include "services/engine/turn.h"
#include "services/oneshot/sequence_request.h"
#include "services/session/cache_reporter.h"
#include "services/session/event_log.h"

namespace millrace::oneshot {

struct GenerationRequest {
  std::string id;               // for on_event; unique among open requests
  std::vector<int32_t> prompt;  // at least one token
  cache::MadePolicy policy;
  engine::GenerationOptions options;
};

class Generation final : public SequenceRequest {
 public:
  // Refuses a prompt that the policy cannot hold with CACHE_FULL; otherwise
  // waits for memory. `admitted` is called once, unless Cancel comes before.
  static std::shared_ptr<Generation> Start(const Dependencies& deps,
                                           GenerationRequest request,
                                           Admitted admitted);

  // Output and CacheUpdated, then one TurnFinished, the last.
  session::EventLog& log() { return log_; }

  void OnRows(int64_t first, int64_t count,
              absl::Span<const float> logits) override;
  std::optional<backends::RowSampling> HowToPick(int unknown_tokens) override;
  void OnPicked(int64_t first, int64_t count, int32_t id) override;
  void OnError(const absl::Status& status) override;

 private:
  Generation(const Dependencies& deps, GenerationRequest request,
             Admitted admitted);

  absl::Status CheckFits() const override;
  void Begin() override;
  // With kDrained.
  void FinishDrained() override;
  void StartTurn();
  // The first `computed` tokens are computed; writes the next one.
  void Write(int64_t computed, const engine::NextToken& next);
  void Emit(session::EventBody event);
  void EmitOutput(const engine::TurnStep& step);
  void Report(int64_t length);
  void PauseWhileFull();
  void Finish(engine::FinishReason reason, const absl::Status& error,
              std::optional<engine::StopMatch> match = std::nullopt);
  session::Usage CurrentUsage() const;

  const GenerationRequest request_;
  session::EventLog log_;
  session::CacheReporter reporter_;
  engine::RecentTokens recent_;
  std::unique_ptr<engine::Turn> turn_;
  int64_t length_ = 0;  // tokens of the text, the newest written included
  int64_t peak_resident_ = 0;
  engine::SpeculationCounts speculated_;
  absl::Time first_token_, last_token_;
};

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_GENERATION_H_
