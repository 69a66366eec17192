// Conversions between float and the two 16-bit formats: IEEE half precision
// (fp16: 5 bits of exponent, 10 of fraction) and bfloat16 (8 and 7).
//
// Narrowing rounds to nearest, ties to even; too large becomes infinity, NaN
// stays NaN, and subnormal numbers are kept. Widening is exact.
#ifndef MILLRACE_BACKENDS_QUANT_HALF_H_
#define MILLRACE_BACKENDS_QUANT_HALF_H_

#include <cstdint>

namespace millrace::backends {

float HalfToFloat(uint16_t half);
uint16_t FloatToHalf(float value);

float Bfloat16ToFloat(uint16_t value);
uint16_t FloatToBfloat16(float value);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_QUANT_HALF_H_
