// Root-mean-square normalisation.
#ifndef MILLRACE_BACKENDS_REFERENCE_RMS_NORM_H_
#define MILLRACE_BACKENDS_REFERENCE_RMS_NORM_H_

#include <vector>

#include "absl/types/span.h"

namespace millrace::backends::reference {

// Per row: out = in / sqrt(mean(in^2) + epsilon) * weight. The sum is in
// double.
// REQUIRES: in is [rows][weight.size()].
std::vector<float> RmsNorm(absl::Span<const float> in,
                           absl::Span<const float> weight, float epsilon);

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_RMS_NORM_H_
