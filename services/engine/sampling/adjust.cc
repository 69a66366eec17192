#include "services/engine/sampling/adjust.h"

#include <algorithm>

namespace millrace::engine {
namespace {

using backends::LogitAdjustment;

bool Penalises(const SamplingOptions& options) {
  return options.penalty_window_tokens > 0 &&
         (options.repetition_penalty != 1.0f ||
          options.presence_penalty != 0.0f ||
          options.frequency_penalty != 0.0f);
}

// Frequencies are numbers of times until all is joined.
void AddPenalties(const SamplingOptions& options, const RecentTokens& recent,
                  int unknown_tokens,
                  std::vector<LogitAdjustment>& adjustments) {
  const int64_t window = std::min<int64_t>(
      options.penalty_window_tokens - unknown_tokens, recent.size());
  std::vector<int32_t> ids(static_cast<size_t>(window));
  for (int64_t i = 0; i < window; ++i) {
    ids[static_cast<size_t>(i)] = recent.Last(i);
  }
  std::sort(ids.begin(), ids.end());
  for (auto first = ids.begin(); first != ids.end();) {
    const auto last = std::find_if(first, ids.end(),
                                   [&](int32_t id) { return id != *first; });
    adjustments.push_back(
        {.id = *first,
         .repetition_penalty = options.repetition_penalty,
         .frequency_penalty = static_cast<float>(last - first),
         .presence_penalty = options.presence_penalty});
    first = last;
  }
}

void MultiplyFrequencies(float penalty,
                         std::vector<LogitAdjustment>& adjustments) {
  for (LogitAdjustment& adjustment : adjustments) {
    const float times = adjustment.frequency_penalty;
    adjustment.frequency_penalty = times * penalty;
    adjustment.frequency_once_more = (times + 1) * penalty;
  }
}

// Of one id: a bias, penalties, or that it is suppressed, each at most once.
void Join(const LogitAdjustment& from, LogitAdjustment& to) {
  to.bias += from.bias;
  if (from.repetition_penalty != 1) {
    to.repetition_penalty = from.repetition_penalty;
  }
  to.frequency_penalty += from.frequency_penalty;
  to.presence_penalty += from.presence_penalty;
  to.suppressed |= from.suppressed;
}

}  // namespace

std::vector<LogitAdjustment> AdjustmentsOf(const SamplingOptions& options,
                                           const RecentTokens& recent,
                                           absl::Span<const int32_t> suppressed,
                                           int unknown_tokens) {
  std::vector<LogitAdjustment> all;
  for (const auto& [id, bias] : options.logit_bias) {
    all.push_back({.id = id, .bias = bias});
  }
  if (Penalises(options)) AddPenalties(options, recent, unknown_tokens, all);
  for (const int32_t id : suppressed) {
    all.push_back({.id = id, .suppressed = true});
  }
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  std::vector<LogitAdjustment> joined;
  for (const LogitAdjustment& one : all) {
    if (!joined.empty() && joined.back().id == one.id) {
      Join(one, joined.back());
    } else {
      joined.push_back(one);
    }
  }
  if (Penalises(options)) {
    MultiplyFrequencies(options.frequency_penalty, joined);
  }
  return joined;
}

backends::Penalties PenaltiesOf(const SamplingOptions& options) {
  if (!Penalises(options)) return {};
  return {.repetition = options.repetition_penalty,
          .frequency = options.frequency_penalty,
          .presence = options.presence_penalty};
}

void AdjustLogits(absl::Span<const LogitAdjustment> adjustments,
                  absl::Span<float> logits) {
  for (const LogitAdjustment& adjustment : adjustments) {
    float& logit = logits[static_cast<size_t>(adjustment.id)];
    logit = backends::AdjustedLogit(logit, adjustment);
  }
}

}  // namespace millrace::engine
