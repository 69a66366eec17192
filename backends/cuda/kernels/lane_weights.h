// The 16 weights that a lane has of a tile (weight_tiles.h), as floats.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_LANE_WEIGHTS_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_LANE_WEIGHTS_H_

#include <cstdint>

#include "backends/cuda/kernels/target.h"
#include "backends/cuda/kernels/weight_tiles.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

// Weights of outputs g and g + 8 (lane = 4 g + t) at the inputs 2t, 2t + 1,
// 2t + 8, 2t + 9, and the same plus 16. A quantised one is to be multiplied by
// the scale of its output, and the minimum added.
struct LaneWeights {
  float low[8], high[8];
};

// Element 4 s + 2 u + odd of low and high is element 8 s + 4 u (+ 2) + odd of
// the tile.
__device__ inline void Put(int element, float weight, LaneWeights& weights) {
  float* const half = element & 2 ? weights.high : weights.low;
  half[element >> 3 << 2 | (element >> 1 & 2) | (element & 1)] = weight;
}

template <WeightType kType>
__device__ inline void LoadLane(const uint8_t* tile, int lane,
                                LaneWeights& weights) {
  const uint8_t* const from = tile + TileHeadBytes(kType);
  if constexpr (kType == WeightType::kQ4_0 || kType == WeightType::kQ4_1) {
    const uint2 words = reinterpret_cast<const uint2*>(from)[lane];
    constexpr int kZero = kType == WeightType::kQ4_0 ? 8 : 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const uint32_t word = i < 8 ? words.x : words.y;
      const int shift = (i & 6) * 2 + (i & 1) * 16;
      Put(i, static_cast<float>(static_cast<int>(word >> shift & 15) - kZero),
          weights);
    }
  } else if constexpr (kType == WeightType::kQ8_0) {
    const uint4 words = reinterpret_cast<const uint4*>(from)[lane];
    const uint32_t all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const auto byte = static_cast<int8_t>(all[i >> 2] >> (i & 3) * 8);
      Put(i, static_cast<float>(byte), weights);
    }
  } else if constexpr (kType == WeightType::kF32) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const uint4 words = reinterpret_cast<const uint4*>(from)[q * 32 + lane];
      const uint32_t all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) Put(q * 4 + i, FloatOf(all[i]), weights);
    }
  } else {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const uint4 words = reinterpret_cast<const uint4*>(from)[s * 32 + lane];
      const uint32_t all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const auto bits = static_cast<uint16_t>(all[i >> 1] >> (i & 1) * 16);
        Put(s * 8 + i,
            kType == WeightType::kF16 ? WidenHalf(bits) : WidenBfloat(bits),
            weights);
      }
    }
  }
}

constexpr bool IsScaled(WeightType type) { return TileHeadBytes(type) > 0; }

// Scale and minimum of one output of a tile; 1 and 0 of float weights.
template <WeightType kType>
__device__ inline float ScaleOf(const uint8_t* tile, int output) {
  if constexpr (!IsScaled(kType)) return 1;
  return WidenHalf(reinterpret_cast<const uint16_t*>(tile)[output]);
}
template <WeightType kType>
__device__ inline float MinimumOf(const uint8_t* tile, int output) {
  if constexpr (kType != WeightType::kQ4_1) return 0;
  return WidenHalf(
      reinterpret_cast<const uint16_t*>(tile)[kTileOutputs + output]);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_LANE_WEIGHTS_H_
