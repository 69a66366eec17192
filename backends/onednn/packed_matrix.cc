#include "backends/onednn/packed_matrix.h"

#include <cstring>

#include "backends/quant/blocks.h"
#include "backends/quant/dequantize.h"

namespace millrace::backends::onednn {
namespace {

// Where the parts of block b, output r of a group lie.
struct BlockPlace {
  uint8_t* scale;
  uint8_t* minimum;  // Q4_1 alone
  uint8_t* words;    // word j at words + 64 * j
};

BlockPlace Place(WeightType type, uint8_t* group, int64_t b, int r) {
  if (type == WeightType::kQ4_1) {
    uint8_t* const tile = group + b * 320;
    return {tile + 2 * r, tile + 32 + 2 * r, tile + 64 + 4 * r};
  }
  const int quant_bytes = type == WeightType::kQ4_0 ? 256 : 512;
  uint8_t* const pair = group + b / 2 * (64 + 2 * quant_bytes);
  return {pair + b % 2 * 32 + 2 * r, nullptr,
          pair + 64 + b % 2 * quant_bytes + 4 * r};
}

template <class Block>
void PackQuants(const Block& block, uint8_t* words) {
  for (size_t j = 0; j < sizeof(block.qs) / 4; ++j) {
    uint32_t word;
    std::memcpy(&word, reinterpret_cast<const uint8_t*>(block.qs) + 4 * j, 4);
    // Signed bytes become unsigned: q + 128.
    if constexpr (sizeof(block.qs) == kBlockSize) word ^= 0x80808080;
    std::memcpy(words + 64 * j, &word, 4);
  }
}

template <class Block>
void UnpackQuants(const uint8_t* words, Block& block) {
  for (size_t j = 0; j < sizeof(block.qs) / 4; ++j) {
    uint32_t word;
    std::memcpy(&word, words + 64 * j, 4);
    if constexpr (sizeof(block.qs) == kBlockSize) word ^= 0x80808080;
    std::memcpy(reinterpret_cast<uint8_t*>(block.qs) + 4 * j, &word, 4);
  }
}

template <class Block>
void PackRow(WeightType type, const uint8_t* row, int64_t blocks, int r,
             uint8_t* group) {
  for (int64_t b = 0; b < blocks; ++b) {
    Block block;
    std::memcpy(&block, row + b * sizeof(Block), sizeof(Block));
    const BlockPlace place = Place(type, group, b, r);
    std::memcpy(place.scale, &block.d, 2);
    if constexpr (requires { block.m; }) {
      std::memcpy(place.minimum, &block.m, 2);
    }
    PackQuants(block, place.words);
  }
}

template <class Block>
void UnpackBlocks(const PackedMatrix& matrix, int row, float* out) {
  uint8_t* const group =
      const_cast<uint8_t*>(matrix.group(row / kGroupRows));  // read only
  for (int b = 0; b < matrix.blocks(); ++b) {
    const BlockPlace place = Place(matrix.type, group, b, row % kGroupRows);
    Block block;
    std::memcpy(&block.d, place.scale, 2);
    if constexpr (requires { block.m; }) {
      std::memcpy(&block.m, place.minimum, 2);
    }
    UnpackQuants(place.words, block);
    DequantizeRow(matrix.type, reinterpret_cast<const uint8_t*>(&block),
                  out + b * kBlockSize, kBlockSize);
  }
}

int64_t FloatRowBytes(WeightType type, int64_t inputs) {
  return RowBytes(type, (inputs + 15) / 16 * 16);
}

}  // namespace

int64_t GroupBytes(WeightType type, int64_t inputs) {
  const int64_t blocks = inputs / kBlockSize;
  switch (type) {
    case WeightType::kQ4_1:
      return blocks * 320;
    case WeightType::kQ4_0:
      return (blocks + 1) / 2 * 576;
    case WeightType::kQ8_0:
      return (blocks + 1) / 2 * 1088;
    default:
      return kGroupRows * FloatRowBytes(type, inputs);
  }
}

PackedMatrix Pack(const TensorView& tensor, uint8_t* to,
                  ptrdiff_t group_stride) {
  const int64_t blocks = tensor.cols / kBlockSize;
  for (int64_t row = 0; row < tensor.rows; ++row) {
    uint8_t* const group = to + row / kGroupRows * group_stride;
    const int r = row % kGroupRows;
    switch (tensor.type) {
      case WeightType::kQ4_1:
        PackRow<BlockQ4_1>(tensor.type, tensor.Row(row), blocks, r, group);
        break;
      case WeightType::kQ4_0:
        PackRow<BlockQ4_0>(tensor.type, tensor.Row(row), blocks, r, group);
        break;
      case WeightType::kQ8_0:
        PackRow<BlockQ8_0>(tensor.type, tensor.Row(row), blocks, r, group);
        break;
      default:
        std::memcpy(group + r * FloatRowBytes(tensor.type, tensor.cols),
                    tensor.Row(row), tensor.row_bytes());
    }
  }
  return {.type = tensor.type,
          .outputs = static_cast<int>(tensor.rows),
          .inputs = static_cast<int>(tensor.cols),
          .data = to,
          .group_stride = group_stride};
}

void UnpackRow(const PackedMatrix& matrix, int row, absl::Span<float> out) {
  switch (matrix.type) {
    case WeightType::kQ4_1:
      return UnpackBlocks<BlockQ4_1>(matrix, row, out.data());
    case WeightType::kQ4_0:
      return UnpackBlocks<BlockQ4_0>(matrix, row, out.data());
    case WeightType::kQ8_0:
      return UnpackBlocks<BlockQ8_0>(matrix, row, out.data());
    default:
      DequantizeRow(
          matrix.type,
          matrix.group(row / kGroupRows) +
              row % kGroupRows * FloatRowBytes(matrix.type, matrix.inputs),
          out.data(), matrix.inputs);
  }
}

}  // namespace millrace::backends::onednn
