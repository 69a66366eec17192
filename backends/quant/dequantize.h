// Stored weights as floats: scalar, obvious, the reference for every kernel.
#ifndef MILLRACE_BACKENDS_QUANT_DEQUANTIZE_H_
#define MILLRACE_BACKENDS_QUANT_DEQUANTIZE_H_

#include <cstdint>

#include "backends/quant/weight_type.h"

namespace millrace::backends {

// Writes the n values of a row that starts at `src`, RowBytes(type, n) bytes,
// to `dst`. Quantised values are computed in float: d * q, then + m.
// `src` needs no alignment.
// REQUIRES: n is a multiple of BlockElements(type).
void DequantizeRow(WeightType type, const uint8_t* src, float* dst, int64_t n);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_QUANT_DEQUANTIZE_H_
