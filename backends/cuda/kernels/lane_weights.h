// The 16 weights that a lane has of a tile (weight_tiles.h), as floats.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_LANE_WEIGHTS_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_LANE_WEIGHTS_H_

#include <cstdint>

#include "backends/cuda/kernels/target.h"
#include "backends/cuda/kernels/weight_tiles.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

// What a lane reads of a tile: it is sent for before the tile's turn comes.
template <WeightType kType>
struct LaneWords {
  static constexpr int kWords = (TileBytes(kType) - TileHeadBytes(kType)) / 128;
  static constexpr int kHead = TileHeadBytes(kType) / 32;
  uint32_t words[kWords];
  uint32_t head[kHead > 0 ? kHead : 1];

  __device__ void Load(const uint8_t* tile, int lane) {
    const uint8_t* const from = tile + TileHeadBytes(kType);
    if constexpr (kWords == 2) {
      const uint2 two = reinterpret_cast<const uint2*>(from)[lane];
      words[0] = two.x, words[1] = two.y;
    } else {
#pragma unroll
      for (int i = 0; i < kWords / 4; ++i) {
        const uint4 four = reinterpret_cast<const uint4*>(from)[32 * i + lane];
        words[4 * i] = four.x, words[4 * i + 1] = four.y;
        words[4 * i + 2] = four.z, words[4 * i + 3] = four.w;
      }
    }
    if constexpr (kHead == 2) {
      const uint2 two = reinterpret_cast<const uint2*>(tile)[lane / 4];
      head[0] = two.x, head[1] = two.y;
    } else if constexpr (kHead == 1) {
      head[0] = reinterpret_cast<const uint32_t*>(tile)[lane / 4];
    }
  }
};

inline constexpr uint32_t kBitsOf128 = 0x43000000;

// Weights of outputs g and g + 8 (lane = 4 g + t) at the inputs 2t, 2t + 1,
// 2t + 8, 2t + 9, and the same plus 16, each less `offset` and divided by
// `scale`.
template <WeightType kType>
struct LaneWeights {
  static constexpr bool kScaled = TileHeadBytes(kType) > 0;
  static constexpr bool kOffset =
      kType == WeightType::kQ4_0 || kType == WeightType::kQ4_1;
  float low[8], high[8];
  float scales[2] = {1, 1};
  float offsets[2] = {0, 0};

  // `bits_of_128`: kBitsOf128, if possible not as a constant.
  __device__ LaneWeights(const LaneWords<kType>& from, uint32_t bits_of_128) {
    if constexpr (kOffset) {
      PutNibbles(from.words, bits_of_128);
    } else if constexpr (kType == WeightType::kQ8_0) {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const auto byte =
            static_cast<int8_t>(from.words[i >> 2] >> (i & 3) * 8);
        Put(i, static_cast<float>(byte));
      }
    } else if constexpr (kType == WeightType::kF32) {
#pragma unroll
      for (int i = 0; i < 16; ++i) Put(i, FloatOf(from.words[i]));
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const auto bits =
            static_cast<uint16_t>(from.words[i >> 1] >> (i & 1) * 16);
        Put(i, kType == WeightType::kF16 ? WidenHalf(bits) : WidenBfloat(bits));
      }
    }
    if constexpr (kScaled) PutScales(from.head);
  }

 private:
  // Element 4 s + 2 u + odd of low and high is element 8 s + 4 u (+ 2) + odd of
  // the tile.
  __device__ void Put(int element, float weight) {
    float* const half = element & 2 ? high : low;
    half[element >> 3 << 2 | (element >> 1 & 2) | (element & 1)] = weight;
  }

  // The float 128 + n is the bits n, as the third byte, under those of 128: so
  // 4 bits become a float by one instruction, and without a conversion.
  __device__ void PutNibbles(const uint32_t (&words)[2], uint32_t bits_of_128) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const uint32_t bytes = words[i >> 3] >> (i & 2) * 2 & 0x0f0f0f0f;
      const int byte = (i & 1) * 2 + (i >> 2 & 1);
      Put(i, FloatOf(ChooseBytes(bytes, bits_of_128, 0x7044 | byte << 8)));
    }
  }

  __device__ void PutScales(const uint32_t* head) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scales[i] = WidenHalf(static_cast<uint16_t>(head[0] >> 16 * i));
      if constexpr (kType == WeightType::kQ4_1) {
        offsets[i] = Fma(-128, scales[i],
                         WidenHalf(static_cast<uint16_t>(head[1] >> 16 * i)));
      } else if constexpr (kType == WeightType::kQ4_0) {
        offsets[i] = -(128 + 8) * scales[i];
      }
    }
  }
};

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_LANE_WEIGHTS_H_
