// The weights that a lane has of a tile (weight_tiles.h), as operand A of the
// tensor cores: half precision, two numbers in a register.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_TENSOR_WEIGHTS_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_TENSOR_WEIGHTS_H_

#include <cstdint>

#include "backends/cuda/kernels/target.h"
#include "backends/cuda/kernels/tensor_numbers.h"
#include "backends/cuda/kernels/weight_tiles.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

// Register r of input half h: outputs g (r even) or g + 8 (lane = 4 g + t), at
// inputs 16 h + 2 t and the next one, 8 more for r >= 2. Several parts add up.
template <WeightType kType>
struct TensorWeights {
  static constexpr int kParts = kType == WeightType::kF32 ? 2 : 1;
  uint32_t registers[kParts][2][4];

  // `tile` is in shared memory.
  __device__ void Load(const uint8_t* tile, int lane) {
    const uint8_t* const from = tile + TileHeadBytes(kType);
    if constexpr (TileHeadBytes(kType) > 0) {
      LoadIntegers(from, lane);
      Scale(tile, lane / 4);
    } else if constexpr (kType == WeightType::kF32) {
      LoadSingles(from, lane);
    } else {
      Load16Bits(from, lane);
    }
  }

 private:
  __device__ void LoadIntegers(const uint8_t* from, int lane) {
    if constexpr (kType == WeightType::kQ8_0) {
      const uint4 four = reinterpret_cast<const uint4*>(from)[lane];
      const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t pair = (words[i / 2] ^ 0x80808080u) >> i % 2 * 16;
        registers[0][i / 4][i % 4] =
            PairOfBytes((pair & 0xff) | (pair & 0xff00) << 8);
      }
    } else {
      const uint2 two = reinterpret_cast<const uint2*>(from)[lane];
      constexpr uint32_t kZero = kType == WeightType::kQ4_0 ? 8 : 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t pair = (i < 4 ? two.x : two.y) >> i % 4 * 4 & 0x000f000f;
        registers[0][i / 4][i % 4] =
            AddPairs(pair | k1024s, Minus1024And(kZero));
      }
    }
  }

  __device__ void Scale(const uint8_t* tile, int g) {
    const auto pair_of = [&](int byte) {
      return *reinterpret_cast<const uint16_t*>(tile + byte) * 0x10001u;
    };
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const uint32_t scale = pair_of(ScaleByte(kType, g + 8 * upper));
      uint32_t minimum = 0;
      if constexpr (kType == WeightType::kQ4_1) {
        minimum = pair_of(MinimumByte(kType, g + 8 * upper));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        uint32_t& pair = registers[0][i / 2][i % 2 * 2 + upper];
        pair = FmaPairs(pair, scale, minimum);
      }
    }
  }

  __device__ void LoadSingles(const uint8_t* from, int lane) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const uint4 four = reinterpret_cast<const uint4*>(from)[q * 32 + lane];
      const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const SplitPair pair(FloatOf(words[2 * i]), FloatOf(words[2 * i + 1]));
        const int r = q % 2 * 2 + i;
        registers[0][q / 2][r] = pair.high;
        registers[kParts - 1][q / 2][r] = pair.low;
      }
    }
  }

  __device__ void Load16Bits(const uint8_t* from, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 four = reinterpret_cast<const uint4*>(from)[half * 32 + lane];
      const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        registers[0][half][r] = kType == WeightType::kF16
                                    ? words[r]
                                    : PairOf(FloatOf(words[r] << 16),
                                             FloatOf(words[r] & 0xffff0000u));
      }
    }
  }
};

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_TENSOR_WEIGHTS_H_
