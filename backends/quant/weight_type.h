// The element types in which weights are stored, and how many bytes they take.
//
// A row of weights is a sequence of blocks: one value for the float types, 32
// values with a common scale for the quantised ones (blocks.h).
//
//   RowBytes(WeightType::kQ4_1, 576)   // 18 blocks of 20 bytes: 360
#ifndef MILLRACE_BACKENDS_QUANT_WEIGHT_TYPE_H_
#define MILLRACE_BACKENDS_QUANT_WEIGHT_TYPE_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace millrace::backends {

enum class WeightType { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1 };

// The name that people know, such as "Q4_1".
absl::string_view WeightTypeName(WeightType type);

// Values of one block: 1 or 32.
int64_t BlockElements(WeightType type);

// Bytes of one block.
int64_t BlockBytes(WeightType type);

// Bytes of a row of `num_elements` values.
// REQUIRES: num_elements >= 0, a multiple of BlockElements(type), and below
// 2^60 so that the product fits.
int64_t RowBytes(WeightType type, int64_t num_elements);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_QUANT_WEIGHT_TYPE_H_
