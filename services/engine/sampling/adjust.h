// What changes logits before a token is chosen: suppressed ids, logit bias and
// penalties.
#ifndef MILLRACE_SERVICES_ENGINE_SAMPLING_ADJUST_H_
#define MILLRACE_SERVICES_ENGINE_SAMPLING_ADJUST_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backends/row_sampling.h"
#include "services/engine/generation_options.h"
#include "services/engine/sampling/recent_tokens.h"

namespace millrace::engine {

// One for each id that is changed, in rising order of ids: the bias, penalties
// for the ids among the last penalty_window_tokens of `recent`, each with the
// number of times it is there, and no probability for those of `suppressed`. If
// `unknown_tokens` (0 or 1) have come that are not in `recent` yet, they push
// out as many: see RowSampling::of_unknown.
//
//   repetition   logit / p if positive, else logit * p (Keskar et al., "CTRL",
//                arXiv:1909.05858, section 4.1)
//   frequency    logit - count * f
//   presence     logit - p
std::vector<backends::LogitAdjustment> AdjustmentsOf(
    const SamplingOptions& options, const RecentTokens& recent,
    absl::Span<const int32_t> suppressed, int unknown_tokens = 0);

// What a token that is not in `recent` yet brings with it.
backends::Penalties PenaltiesOf(const SamplingOptions& options);

// Carries them out. `logits` is [vocabulary_size].
void AdjustLogits(absl::Span<const backends::LogitAdjustment> adjustments,
                  absl::Span<float> logits);

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SAMPLING_ADJUST_H_
