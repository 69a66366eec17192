#include "tests/backends/onednn/random_tensor.h"

#include <cmath>
#include <cstring>

#include "backends/quant/dequantize.h"
#include "backends/quant/half.h"

namespace millrace::backends::onednn {
namespace {

// Overwrites the 16-bit scales (and minima) of a row of blocks.
void SetScales(const TensorView& tensor, uint8_t* row, std::mt19937& random) {
  if (BlockElements(tensor.type) == 1) return;
  const float unit = (tensor.type == WeightType::kQ8_0 ? 1.0f / 64 : 1.0f / 4) /
                     std::sqrt(static_cast<float>(tensor.cols));
  std::uniform_real_distribution<float> scale(0.5f * unit, 1.5f * unit);
  const int64_t bytes = BlockBytes(tensor.type);
  for (int64_t b = 0; b < tensor.cols / BlockElements(tensor.type); ++b) {
    const float d = scale(random);
    const uint16_t halves[2] = {FloatToHalf(d), FloatToHalf(-7.5f * d)};
    std::memcpy(row + b * bytes, halves,
                tensor.type == WeightType::kQ4_1 ? 4 : 2);
  }
}

void SetFloats(const TensorView& tensor, uint8_t* row, std::mt19937& random) {
  std::normal_distribution<float> value(
      0.0f, 1.0f / std::sqrt(static_cast<float>(tensor.cols)));
  for (int64_t i = 0; i < tensor.cols; ++i) {
    const float x = value(random);
    const uint16_t bits =
        tensor.type == WeightType::kF16 ? FloatToHalf(x) : FloatToBfloat16(x);
    if (tensor.type == WeightType::kF32) {
      std::memcpy(row + 4 * i, &x, 4);
    } else {
      std::memcpy(row + 2 * i, &bits, 2);
    }
  }
}

}  // namespace

RandomTensor MakeRandomTensor(WeightType type, int rows, int cols,
                              uint32_t seed) {
  std::mt19937 random(seed);
  RandomTensor tensor;
  tensor.view.type = type;
  tensor.view.rows = rows;
  tensor.view.cols = cols;
  const int64_t bytes = rows * RowBytes(type, cols);
  tensor.memory.resize((bytes + 7) / 8);
  for (uint64_t& word : tensor.memory) {
    word = uint64_t{random()} << 32 | random();
  }
  auto* const data = reinterpret_cast<uint8_t*>(tensor.memory.data());
  tensor.view.data = {data, static_cast<size_t>(bytes)};
  for (int r = 0; r < rows; ++r) {
    uint8_t* const row = data + r * RowBytes(type, cols);
    if (BlockElements(type) == 1) {
      SetFloats(tensor.view, row, random);
    } else {
      SetScales(tensor.view, row, random);
    }
  }
  return tensor;
}

std::vector<float> RandomFloats(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> value(0.0f, 1.0f);
  std::vector<float> floats(n);
  for (float& x : floats) x = value(random);
  return floats;
}

std::vector<float> Dequantised(const TensorView& tensor) {
  std::vector<float> values(tensor.rows * tensor.cols);
  for (int64_t r = 0; r < tensor.rows; ++r) {
    DequantizeRow(tensor.type, tensor.Row(r), &values[r * tensor.cols],
                  tensor.cols);
  }
  return values;
}

}  // namespace millrace::backends::onednn
