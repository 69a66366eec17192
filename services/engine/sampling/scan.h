// Passes over all logits of a token: as fast as memory, since every token of
// every sequence pays for them.
#ifndef MILLRACE_SERVICES_ENGINE_SAMPLING_SCAN_H_
#define MILLRACE_SERVICES_ENGINE_SAMPLING_SCAN_H_

#include <cstddef>

#include "absl/types/span.h"

namespace millrace::engine {

// Whether any logit is NaN or infinite.
bool HasNonfinite(absl::Span<const float> logits);

// The largest logit. REQUIRES: not empty, no NaN.
float Largest(absl::Span<const float> logits);

// The index of the first logit that is equal to `logit`. REQUIRES: there is
// one.
size_t IndexOf(absl::Span<const float> logits, float logit);

// The sum of exp((logit - largest) / temperature), to a relative error of 1e-6;
// minus infinity counts as 0. REQUIRES: `largest` is finite and the largest of
// `logits`, temperature > 0.
double SumOfWeights(absl::Span<const float> logits, float largest,
                    float temperature);

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SAMPLING_SCAN_H_
