// Finds weights that are no numbers, before they turn every logit into NaN.
#ifndef MILLRACE_BACKENDS_QUANT_FINITE_H_
#define MILLRACE_BACKENDS_QUANT_FINITE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "backends/quant/weight_type.h"

namespace millrace::backends {

// Returns the index of the first block whose scale, minimum or value is NaN or
// infinite, or -1 if all are finite. One pass at the speed of memory.
// REQUIRES: data is whole blocks, aligned to 8 bytes.
int64_t FirstNonFiniteBlock(WeightType type, absl::Span<const uint8_t> data);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_QUANT_FINITE_H_
