#include "services/oneshot/generation.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"

namespace millrace::oneshot {
namespace {

using engine::FinishReason;

constexpr uint64_t kTurn = 1;  // the only one

absl::Status DoesNotFit(int64_t tokens, int64_t limit) {
  errors::Details details;
  details.field = "inputs";
  details.metadata = {{"requested", absl::StrCat(tokens)},
                      {"limit", absl::StrCat(limit)}};
  return errors::MakeError(
      absl::StatusCode::kFailedPrecondition, errors::Reason::kCacheFull,
      absl::StrCat("a prompt of ", tokens, " tokens does not fit into ", limit,
                   ", all that policy 'full' holds; ask for a policy that "
                   "evicts, such as 'sinks'"),
      details);
}

}  // namespace

std::shared_ptr<Generation> Generation::Start(const Dependencies& deps,
                                              GenerationRequest request,
                                              Admitted admitted) {
  std::shared_ptr<Generation> generation(
      new Generation(deps, std::move(request), std::move(admitted)));
  generation->log_.SetOnDrained([weak = std::weak_ptr(generation)] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->Post([raw = self.get()] {
      if (raw->sequence()) raw->sequence()->SetPaused(false);
    });
  });
  SequenceRequest::Start(generation);
  return generation;
}

Generation::Generation(const Dependencies& deps, GenerationRequest request,
                       Admitted admitted)
    : SequenceRequest(deps, request.id, request.policy.policy,
                      std::move(admitted)),
      request_(std::move(request)),
      log_(deps.log),
      reporter_(request_.policy.policy, [this] { return sequence()->Held(); }),
      length_(static_cast<int64_t>(request_.prompt.size())) {}

absl::Status Generation::CheckFits() const {
  const int64_t limit = policy().MaxTextTokens();
  if (length_ <= limit) return absl::OkStatus();
  return DoesNotFit(length_, limit);
}

void Generation::Begin() {
  session::InputAccepted accepted;
  accepted.tokens = request_.prompt.size();
  Observe(accepted);
  session::TurnStarted started;
  started.turn = kTurn;
  Observe(started);
  sequence()->SetSpeculation(request_.options.sampling.speculation);
  sequence()->Append(request_.prompt);
  sequence()->WantLogits(engine::Logits::kLast);
}

void Generation::OnRows(int64_t first, int64_t count,
                        absl::Span<const float> logits) {
  Write(first + count, {.logits = logits});
}

// The prompt's own logits start the turn.
std::optional<backends::RowSampling> Generation::HowToPick(int unknown_tokens) {
  if (!turn_) return std::nullopt;
  return turn_->HowToPick(unknown_tokens);
}

void Generation::OnPicked(int64_t first, int64_t count, int32_t id) {
  Write(first + count, {.picked = id});
}

void Generation::Write(int64_t computed, const engine::NextToken& next) {
  peak_resident_ = sequence()->peak_resident_tokens();
  speculated_ = sequence()->speculation_counts();
  if (next.empty()) {
    Report(computed);
    return;
  }
  if (length_ >= policy().MaxTextTokens() || sequence()->room_to_write() < 1) {
    Finish(FinishReason::kCapacity, absl::OkStatus());
    return;
  }
  last_token_ = deps().now();
  if (!turn_) StartTurn();
  const engine::TurnStep step = turn_->Next(next, last_token_);
  EmitOutput(step);
  if (step.finished) {
    Finish(*step.finished,
           *step.finished == FinishReason::kError
               ? errors::MakeError(absl::StatusCode::kInternal,
                                   errors::Reason::kNonfiniteLogits,
                                   "the model's logits are not finite")
               : absl::OkStatus(),
           step.stop_match);
    return;
  }
  Report(length_);
  sequence()->Append({&step.token_id, 1});
  PauseWhileFull();
}

// The turn begins with its first token: so does its time limit.
void Generation::StartTurn() {
  first_token_ = last_token_;
  turn_ = std::make_unique<engine::Turn>(
      request_.options, engine::Turn::Context{.turn = kTurn,
                                              .tokenizer = deps().tokenizer,
                                              .recent = &recent_,
                                              .started = first_token_});
  recent_.Add(request_.prompt);
}

void Generation::OnError(const absl::Status& status) {
  if (absl::IsFailedPrecondition(status)) {
    Finish(FinishReason::kCapacity, absl::OkStatus());
    return;
  }
  Finish(FinishReason::kError,
         errors::MakeError(absl::StatusCode::kInternal,
                           errors::Reason::kDeviceError,
                           "the backend failed to compute a step"));
}

void Generation::Emit(session::EventBody event) {
  Observe(event);
  if (auto* output = std::get_if<session::Output>(&event)) {
    const engine::ResponseOptions& wanted = request_.options.response;
    if (!wanted.text) output->text.clear();
    if (!wanted.token_ids) {
      output->unnamed_tokens = output->token_ids.size();
      output->token_ids.clear();
    }
  }
  log_.Append(std::move(event));
}

void Generation::EmitOutput(const engine::TurnStep& step) {
  session::Output output;
  output.turn = kTurn;
  output.text_position = static_cast<uint64_t>(length_);
  if (step.token_id >= 0) {
    ++length_;
    output.token_ids.push_back(step.token_id);
    if (step.logprobs) output.logprobs.push_back(*step.logprobs);
  }
  output.text = step.text;
  if (!output.token_ids.empty() || !output.text.empty()) {
    Emit(std::move(output));
  }
}

void Generation::Report(int64_t length) {
  auto update = reporter_.Advance(
      length, request_.options.response.cache_update_interval_tokens);
  if (update) Emit(*std::move(update));
}

void Generation::PauseWhileFull() {
  if (!log_.Full()) return;
  sequence()->SetPaused(true);
  // It may have drained before the pause.
  if (!log_.Full()) sequence()->SetPaused(false);
}

void Generation::Finish(FinishReason reason, const absl::Status& error,
                        std::optional<engine::StopMatch> match) {
  if (reason == FinishReason::kCapacity &&
      request_.policy.on_full == cache::OnFull::kError) {
    Finish(
        FinishReason::kError,
        errors::MakeError(
            absl::StatusCode::kFailedPrecondition, errors::Reason::kCacheFull,
            absl::StrCat("the text has ", length_, " tokens, all that policy '",
                         policy().Name(), "' holds")));
    return;
  }
  if (std::string held = turn_ ? turn_->Flush() : ""; !held.empty()) {
    session::Output output;
    output.turn = kTurn;
    output.text_position = static_cast<uint64_t>(length_);
    output.text = std::move(held);
    Emit(std::move(output));
  }
  if (auto update = reporter_.ReportAll(length_)) Emit(*std::move(update));
  session::TurnFinished finished;
  finished.turn = kTurn;
  finished.reason = reason;
  finished.stop_match = std::move(match);
  finished.usage = CurrentUsage();
  finished.kept_until = length_;
  finished.error = error;
  Emit(std::move(finished));
  Release();
}

void Generation::FinishDrained() {
  Finish(FinishReason::kDrained, absl::OkStatus());
}

session::Usage Generation::CurrentUsage() const {
  session::Usage usage;
  usage.input_tokens = request_.prompt.size();
  usage.generated_tokens = turn_ ? turn_->generated_tokens() : 0;
  usage.text_position = length_;
  usage.visible_tokens = reporter_.VisibleTokens(length_);
  usage.evicted_tokens = length_ - usage.visible_tokens;
  usage.peak_resident_tokens = peak_resident_;
  usage.drafted_tokens = speculated_.drafted;
  usage.accepted_tokens = speculated_.accepted;
  usage.queued = queued();
  if (usage.generated_tokens > 0) {
    usage.time_to_first_token = first_token_ - requested();
    usage.decode = last_token_ - first_token_;
  }
  return usage;
}

}  // namespace millrace::oneshot
