#include "backends/quant/dequantize.h"

#include <cstring>

#include "backends/quant/blocks.h"
#include "backends/quant/half.h"

namespace millrace::backends {
namespace {

template <typename T>
T Load(const uint8_t* src) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

void DequantizeBlock(const BlockQ8_0& block, float* dst) {
  const float d = HalfToFloat(block.d);
  for (int i = 0; i < kBlockSize; ++i) dst[i] = d * block.qs[i];
}

void DequantizeBlock(const BlockQ4_0& block, float* dst) {
  const float d = HalfToFloat(block.d);
  for (int i = 0; i < kBlockSize / 2; ++i) {
    dst[i] = d * ((block.qs[i] & 15) - 8);
    dst[i + kBlockSize / 2] = d * ((block.qs[i] >> 4) - 8);
  }
}

void DequantizeBlock(const BlockQ4_1& block, float* dst) {
  const float d = HalfToFloat(block.d);
  const float m = HalfToFloat(block.m);
  for (int i = 0; i < kBlockSize / 2; ++i) {
    dst[i] = d * (block.qs[i] & 15) + m;
    dst[i + kBlockSize / 2] = d * (block.qs[i] >> 4) + m;
  }
}

template <typename Block>
void DequantizeBlocks(const uint8_t* src, float* dst, int64_t n) {
  for (int64_t i = 0; i < n; i += kBlockSize, src += sizeof(Block)) {
    DequantizeBlock(Load<Block>(src), dst + i);
  }
}

}  // namespace

void DequantizeRow(WeightType type, const uint8_t* src, float* dst, int64_t n) {
  switch (type) {
    case WeightType::kF32:
      std::memcpy(dst, src, n * sizeof(float));
      return;
    case WeightType::kF16:
      for (int64_t i = 0; i < n; ++i) {
        dst[i] = HalfToFloat(Load<uint16_t>(src + 2 * i));
      }
      return;
    case WeightType::kBF16:
      for (int64_t i = 0; i < n; ++i) {
        dst[i] = Bfloat16ToFloat(Load<uint16_t>(src + 2 * i));
      }
      return;
    case WeightType::kQ8_0:
      return DequantizeBlocks<BlockQ8_0>(src, dst, n);
    case WeightType::kQ4_0:
      return DequantizeBlocks<BlockQ4_0>(src, dst, n);
    case WeightType::kQ4_1:
      return DequantizeBlocks<BlockQ4_1>(src, dst, n);
  }
}

}  // namespace millrace::backends
