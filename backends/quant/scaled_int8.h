// Numbers of 8 bits that share a scale:
//
//   x[i] ~ scale * q[i],   scale = max|x| / 127,   q in -127 .. 127
//
// The scale has 16 significant bits, so that scale * q is a float without
// rounding, and a vector that was rounded once is not changed by being rounded
// again. The largest number comes back within 2^-16 of itself, the others
// within half a scale.
#ifndef MILLRACE_BACKENDS_QUANT_SCALED_INT8_H_
#define MILLRACE_BACKENDS_QUANT_SCALED_INT8_H_

#include <cstdint>

#include "absl/types/span.h"

namespace millrace::backends {

// Rounds a vector: fills `q`, which has room for it, and returns the scale. To
// nearest, ties to even. A vector with no number of 2^-100 or more becomes
// zero, with scale 0; one with a NaN or an infinity becomes NaN throughout.
float RoundToScaledInt8(absl::Span<const float> numbers, int8_t* q);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_QUANT_SCALED_INT8_H_
