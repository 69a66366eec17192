#include "backends/quant/weight_type.h"

#include "backends/quant/blocks.h"

namespace millrace::backends {

absl::string_view WeightTypeName(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return "F32";
    case WeightType::kF16:
      return "F16";
    case WeightType::kBF16:
      return "BF16";
    case WeightType::kQ8_0:
      return "Q8_0";
    case WeightType::kQ4_0:
      return "Q4_0";
    case WeightType::kQ4_1:
      return "Q4_1";
  }
  return "unknown";
}

int64_t BlockElements(WeightType type) {
  switch (type) {
    case WeightType::kF32:
    case WeightType::kF16:
    case WeightType::kBF16:
      return 1;
    case WeightType::kQ8_0:
    case WeightType::kQ4_0:
    case WeightType::kQ4_1:
      return kBlockSize;
  }
  return 1;
}

int64_t BlockBytes(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return sizeof(float);
    case WeightType::kF16:
    case WeightType::kBF16:
      return sizeof(uint16_t);
    case WeightType::kQ8_0:
      return sizeof(BlockQ8_0);
    case WeightType::kQ4_0:
      return sizeof(BlockQ4_0);
    case WeightType::kQ4_1:
      return sizeof(BlockQ4_1);
  }
  return 1;
}

int64_t RowBytes(WeightType type, int64_t num_elements) {
  return num_elements / BlockElements(type) * BlockBytes(type);
}

}  // namespace millrace::backends
