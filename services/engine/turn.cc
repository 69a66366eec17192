#include "services/engine/turn.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "services/engine/repetition_guard.h"
#include "services/engine/sampling/adjust.h"
#include "services/engine/sampling/choose.h"
#include "services/engine/sampling/logprobs.h"
#include "services/engine/sampling/philox.h"
#include "services/engine/sampling/scan.h"
#include "services/engine/stop_matcher.h"
#include "services/text/utf8_assembler.h"

namespace millrace::engine {
namespace {

RecentTokens* Grown(RecentTokens* recent, const GenerationOptions& options) {
  recent->Grow(std::max(options.sampling.penalty_window_tokens,
                        options.stopping.repetition_guard));
  return recent;
}

}  // namespace

struct Turn::State {
  State(const GenerationOptions& o, const Context& c)
      : options(o),
        context(c),
        stops(o.stopping.stop_strings),
        guard(o.stopping.repetition_guard, Grown(c.recent, o)) {}

  int32_t Pick(absl::Span<const float> logits);
  backends::RowSampling Sampling(int unknown_tokens) const;
  void AddText(int32_t id, TurnStep* step);
  std::optional<FinishReason> LimitReached(absl::Time now);
  void Take(int32_t id, absl::Time now, TurnStep* step);
  std::string WholeText(int32_t id) const;
  std::string Held();

  const GenerationOptions options;
  const Context context;
  text::Utf8Assembler assembler;
  StopMatcher stops;
  RepetitionGuard guard;
  std::vector<float> adjusted;  // as long as logits, if they are adjusted
  uint64_t generated = 0;
};

// How a token is picked, here or by a backend.
backends::RowSampling Turn::State::Sampling(int unknown_tokens) const {
  const uint64_t index = generated + unknown_tokens;
  const SamplingOptions& sampling = options.sampling;
  absl::Span<const int32_t> suppressed;
  if (options.stopping.ignore_end_of_turn ||
      index < options.stopping.min_tokens) {
    suppressed = context.tokenizer->end_of_turn_ids();
  }
  return {.temperature = sampling.temperature,
          .top_k = sampling.top_k,
          .top_p = sampling.top_p,
          .min_p = sampling.min_p,
          .uniform = UniformOf(sampling.seed, context.turn, index),
          .adjustments = AdjustmentsOf(sampling, *context.recent, suppressed,
                                       unknown_tokens),
          .of_unknown = unknown_tokens > 0 ? PenaltiesOf(sampling)
                                           : backends::Penalties{}};
}

int32_t Turn::State::Pick(absl::Span<const float> logits) {
  const backends::RowSampling sampling = Sampling(/*unknown_tokens=*/0);
  if (!sampling.adjustments.empty()) {
    adjusted.assign(logits.begin(), logits.end());
    AdjustLogits(sampling.adjustments, absl::MakeSpan(adjusted));
    logits = adjusted;
  }
  return Choose(sampling, logits);
}

// Text goes from the token's bytes to whole characters, and from there past the
// stop strings.
void Turn::State::AddText(int32_t id, TurnStep* step) {
  StopMatcher::Result result =
      stops.Add(assembler.Add(context.tokenizer->TokenBytes(id)));
  step->text = std::move(result.shown);
  if (!result.found.has_value()) return;
  step->finished = FinishReason::kStop;
  step->stop_match = StopMatch{
      .text = std::move(result.found->stop),
      .trimmed_text = absl::StrCat(result.found->trimmed, assembler.Finish())};
}

std::optional<FinishReason> Turn::State::LimitReached(absl::Time now) {
  const StoppingOptions& stopping = options.stopping;
  if (guard.Repeats()) return FinishReason::kRepetition;
  if (stopping.max_tokens.has_value() && generated >= *stopping.max_tokens) {
    return FinishReason::kMaxTokens;
  }
  if (now - context.started >= stopping.time_limit) {
    return FinishReason::kTimeLimit;
  }
  return std::nullopt;
}

// Fills the step's text, and why it ends the turn, if it does.
void Turn::State::Take(int32_t id, absl::Time now, TurnStep* step) {
  if (context.tokenizer->IsEndOfTurn(id)) {
    step->text = Held();
    step->finished = FinishReason::kEndOfTurn;
  } else if (absl::c_linear_search(options.stopping.stop_token_ids, id)) {
    step->text = Held();
    step->finished = FinishReason::kStop;
    step->stop_match =
        StopMatch{.text = {}, .token_id = id, .trimmed_text = WholeText(id)};
  } else {
    AddText(id, step);
    if (step->finished.has_value()) return;
    step->finished = LimitReached(now);
    if (step->finished.has_value()) step->text += Held();
  }
}

std::string Turn::State::WholeText(int32_t id) const {
  text::Utf8Assembler alone;
  const std::string characters = alone.Add(context.tokenizer->TokenBytes(id));
  return absl::StrCat(characters, alone.Finish());
}

std::string Turn::State::Held() {
  const std::string text = stops.Flush();
  return absl::StrCat(text, assembler.Finish());
}

Turn::Turn(const GenerationOptions& options, const Context& context)
    : state_(std::make_unique<State>(options, context)) {}

Turn::~Turn() = default;

TurnStep Turn::Next(const NextToken& next, absl::Time now) {
  State& state = *state_;
  const ResponseOptions& response = state.options.response;
  TurnStep step;
  if (next.picked) {
    step.token_id = *next.picked;
  } else if (!HasNonfinite(next.logits)) {
    step.token_id = state.Pick(next.logits);
  }
  if (step.token_id < 0) {
    step.text = Flush();
    step.finished = FinishReason::kError;
    return step;
  }
  if (response.logprobs >= 0) {
    step.logprobs = LogprobsOf(next.logits, step.token_id, response.logprobs);
  }
  ++state.generated;
  state.context.recent->Add(step.token_id);
  state.Take(step.token_id, now, &step);
  if (!response.text) step.text.clear();
  return step;
}

std::optional<backends::RowSampling> Turn::HowToPick(int unknown_tokens) const {
  if (state_->options.response.logprobs >= 0) return std::nullopt;
  backends::RowSampling sampling = state_->Sampling(unknown_tokens);
  if (sampling.adjustments.size() > backends::RowSampling::kMaxAdjustments) {
    return std::nullopt;
  }
  return sampling;
}

std::string Turn::OnInput() { return Flush(); }

std::string Turn::Flush() {
  std::string held = state_->Held();
  return state_->options.response.text ? held : std::string();
}

bool Turn::AtCharacterBoundary() const { return !state_->assembler.pending(); }

uint64_t Turn::generated_tokens() const { return state_->generated; }

}  // namespace millrace::engine
