// What changes logits before a token is chosen: suppressed ids, logit bias and
// penalties.
#ifndef MILLRACE_SERVICES_ENGINE_SAMPLING_ADJUST_H_
#define MILLRACE_SERVICES_ENGINE_SAMPLING_ADJUST_H_

#include <cstdint>

#include "absl/types/span.h"
#include "services/engine/generation_options.h"
#include "services/engine/sampling/recent_tokens.h"

namespace millrace::engine {

// Whether AdjustLogits has anything to do.
bool AdjustsLogits(const SamplingOptions& options);

// Adds the bias, then applies penalties to the ids among the last
// penalty_window_tokens of `recent`, each with the number of times it is there:
//
//   repetition   logit / p if positive, else logit * p (Keskar et al., "CTRL",
//                arXiv:1909.05858, section 4.1)
//   frequency    logit - count * f
//   presence     logit - p
//
// Results stay finite. `logits` is [vocabulary_size].
void AdjustLogits(const SamplingOptions& options, const RecentTokens& recent,
                  absl::Span<float> logits);

// Gives the ids no probability.
void Suppress(absl::Span<const int32_t> ids, absl::Span<float> logits);

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SAMPLING_ADJUST_H_
