#include "services/engine/sampling/adjust.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace millrace::engine {
namespace {

float Finite(float x) {
  constexpr float kMost = std::numeric_limits<float>::max();
  return std::clamp(x, -kMost, kMost);
}

bool Penalises(const SamplingOptions& options) {
  return options.penalty_window_tokens > 0 &&
         (options.repetition_penalty != 1.0f ||
          options.presence_penalty != 0.0f ||
          options.frequency_penalty != 0.0f);
}

float Penalised(const SamplingOptions& options, float logit, int count) {
  logit = Finite(logit > 0 ? logit / options.repetition_penalty
                           : logit * options.repetition_penalty);
  return Finite(logit - static_cast<float>(count) * options.frequency_penalty -
                options.presence_penalty);
}

void Penalise(const SamplingOptions& options, const RecentTokens& recent,
              absl::Span<float> logits) {
  const int64_t window =
      std::min<int64_t>(options.penalty_window_tokens, recent.size());
  std::vector<int32_t> ids(static_cast<size_t>(window));
  for (int64_t i = 0; i < window; ++i) {
    ids[static_cast<size_t>(i)] = recent.Last(i);
  }
  std::sort(ids.begin(), ids.end());
  for (auto first = ids.begin(); first != ids.end();) {
    const auto last = std::find_if(first, ids.end(),
                                   [&](int32_t id) { return id != *first; });
    float& logit = logits[static_cast<size_t>(*first)];
    logit = Penalised(options, logit, static_cast<int>(last - first));
    first = last;
  }
}

}  // namespace

bool AdjustsLogits(const SamplingOptions& options) {
  return !options.logit_bias.empty() || Penalises(options);
}

void AdjustLogits(const SamplingOptions& options, const RecentTokens& recent,
                  absl::Span<float> logits) {
  for (const auto& [id, bias] : options.logit_bias) {
    float& logit = logits[static_cast<size_t>(id)];
    logit = Finite(logit + bias);
  }
  if (Penalises(options)) Penalise(options, recent, logits);
}

void Suppress(absl::Span<const int32_t> ids, absl::Span<float> logits) {
  for (const int32_t id : ids) {
    logits[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
}

}  // namespace millrace::engine
