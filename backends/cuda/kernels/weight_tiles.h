// How weights lie on the device: tiles of 16 outputs x 32 inputs, in the order
// in which the lanes of a warp want them, so that a warp reads a tile with one
// or two loads of consecutive bytes, and what a lane reads is what the tensor
// cores' operand A of shape 16 x 16 wants of it.
//
//   matrix   [groups of 16 outputs][blocks of 32 inputs] of a tile
//   tile     scales, of half precision: Q4_0, Q4_1, Q8_0; for Q4_1 minima, too:
//            what outputs g and g + 8 have is together
//            weights, [32 lanes] of 8 (4 bits), 16 (8 bits) or, twice or four
//            times, 16 bytes (16 and 32 bits)
//
// A quantised weight is as the file has it: nothing is rounded anew. Outputs
// and inputs beyond the matrix are zero.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_WEIGHT_TILES_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_WEIGHT_TILES_H_

#include <cstdint>

#include "backends/quant/weight_type.h"

namespace millrace::backends::cuda {

inline constexpr int kTileOutputs = 16;
inline constexpr int kTileInputs = 32;

// Bytes before the weights of a tile.
constexpr int TileHeadBytes(WeightType type) {
  return type == WeightType::kQ4_1                                ? 64
         : type == WeightType::kQ4_0 || type == WeightType::kQ8_0 ? 32
                                                                  : 0;
}

constexpr int TileBytes(WeightType type) {
  return type == WeightType::kQ4_0   ? 32 + 256
         : type == WeightType::kQ4_1 ? 64 + 256
         : type == WeightType::kQ8_0 ? 32 + 512
         : type == WeightType::kF32  ? 2048
                                     : 1024;
}

// Where an output's scale begins in the tile, and where its minimum (Q4_1).
constexpr int ScaleByte(WeightType type, int output) {
  return output % 8 * (TileHeadBytes(type) / 8) + output / 8 * 2;
}
constexpr int MinimumByte(WeightType type, int output) {
  return ScaleByte(type, output) + 4;
}

// Where weight (output, input) of a tile is: lane, and which of its 16.
//
//   element = 8 * (input / 16) + 2 * register + input % 2
//
// where register is that of the operand: 0 and 1 for outputs 0 .. 7 and
// 8 .. 15, 2 more for the upper 8 of 16 inputs.
struct TilePlace {
  int lane, element;
};
constexpr TilePlace PlaceInTile(int output, int input) {
  const int upper = input % 16 / 8;
  return {.lane = output % 8 * 4 + input % 8 / 2,
          .element = input / 16 * 8 + 2 * (output / 8 + 2 * upper) + input % 2};
}

// The byte of the tile that the weight is in or begins at.
constexpr int TileByte(WeightType type, TilePlace place) {
  const int head = TileHeadBytes(type);
  const auto [lane, element] = place;
  switch (type) {
    case WeightType::kQ4_0:
    case WeightType::kQ4_1:
      // Even elements in bits 0 .. 15 of a word of 8, odd ones above: a pair
      // becomes two numbers of 16 bits by one mask.
      return head + lane * 8 + element / 8 * 4 + element % 2 * 2 +
             element % 8 / 4;
    case WeightType::kQ8_0:
      return head + lane * 16 + element;
    case WeightType::kF16:
    case WeightType::kBF16:
      return element / 8 * 512 + lane * 16 + element % 8 * 2;
    case WeightType::kF32:
      break;
  }
  return element / 4 * 512 + lane * 16 + element % 4 * 4;
}

// Of a weight of 4 bits: whether it is the upper half of its byte.
constexpr bool IsHighNibble(TilePlace place) { return place.element / 2 % 2; }

// A matrix on the device.
struct Matrix {
  WeightType type = WeightType::kF32;
  int outputs = 0;
  int inputs = 0;
  const uint8_t* tiles = nullptr;
  // Whether the tensor cores can have the weights: of a float type, none is
  // beyond 65504.
  bool fits_half = true;

  constexpr int groups() const {
    return (outputs + kTileOutputs - 1) / kTileOutputs;
  }
  constexpr int blocks() const {
    return (inputs + kTileInputs - 1) / kTileInputs;
  }
  constexpr int64_t bytes() const {
    return int64_t{groups()} * blocks() * TileBytes(type);
  }
};

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_WEIGHT_TILES_H_
