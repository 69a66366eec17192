// Chooses a token from adjusted logits.
#ifndef MILLRACE_SERVICES_ENGINE_SAMPLING_CHOOSE_H_
#define MILLRACE_SERVICES_ENGINE_SAMPLING_CHOOSE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "backends/row_sampling.h"
#include "services/engine/generation_options.h"

namespace millrace::engine {

// The id with the largest logit; the lowest of equal ones.
// REQUIRES: not empty, no NaN.
int32_t Greedy(absl::Span<const float> logits);

// The token that the random number `uniform`, 0 <= u < 1, picks. Tokens are
// taken in falling order of probability, equal ones in rising order of ids; in
// this order each filter keeps a first part of what the one before kept:
//
//   temperature T   probabilities are softmax(logits / T)
//   top_k           the first k
//   top_p           the fewest first ones whose share of what top_k kept is p
//                   (Holtzman et al., arXiv:1904.09751)
//   min_p           those at least min_p times as likely as the first
//                   (Nguyen et al., arXiv:2407.01082)
//
// Logits of minus infinity are never chosen while there are others.
// REQUIRES: temperature > 0; not empty, no NaN.
int32_t Choose(const SamplingOptions& options, absl::Span<const float> logits,
               double uniform);

// As `sampling` says, whose adjustments have been made: greedy or by its random
// number.
int32_t Choose(const backends::RowSampling& sampling,
               absl::Span<const float> logits);

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SAMPLING_CHOOSE_H_
