// Numbers of keys and values: rounded as they are stored, and read back.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_KV_NUMBERS_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_KV_NUMBERS_H_

#include <cstdint>

#include "backends/cuda/kernels/kv_memory.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

using cache::KvDtype;

__device__ inline float* ScalesOf(KvTile tile, int padded_dim) {
  return reinterpret_cast<float*>(tile.data + cache::kBlockTokens * padded_dim);
}

// Number d of the token in `slot`.
__device__ inline float LoadNumber(KvTile tile, int padded_dim, int slot,
                                   int d) {
  const int i = slot * padded_dim + d;
  switch (tile.dtype) {
    case KvDtype::kF32:
      return reinterpret_cast<const float*>(tile.data)[i];
    case KvDtype::kF16:
      return WidenHalf(reinterpret_cast<const uint16_t*>(tile.data)[i]);
    case KvDtype::kBF16:
      return WidenBfloat(reinterpret_cast<const uint16_t*>(tile.data)[i]);
    case KvDtype::kInt8:
      break;
  }
  return static_cast<float>(reinterpret_cast<const int8_t*>(tile.data)[i]) *
         ScalesOf(tile, padded_dim)[slot];
}

// Numbers d .. d + 7 of the token, d a multiple of 8: one or two wide loads.
__device__ inline void LoadEight(KvTile tile, int padded_dim, int slot, int d,
                                 float (&out)[8]) {
  const int i = slot * padded_dim + d;
  switch (tile.dtype) {
    case KvDtype::kF32: {
      const auto* from = reinterpret_cast<const uint4*>(tile.data + 4 * i);
      const uint4 a = from[0], b = from[1];
      const uint32_t words[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int k = 0; k < 8; ++k) out[k] = FloatOf(words[k]);
      return;
    }
    case KvDtype::kF16:
    case KvDtype::kBF16: {
      const uint4 a = *reinterpret_cast<const uint4*>(tile.data + 2 * i);
      const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const auto bits = static_cast<uint16_t>(words[k / 2] >> k % 2 * 16);
        out[k] =
            tile.dtype == KvDtype::kF16 ? WidenHalf(bits) : WidenBfloat(bits);
      }
      return;
    }
    case KvDtype::kInt8:
      break;
  }
  const uint2 a = *reinterpret_cast<const uint2*>(tile.data + i);
  const uint32_t words[2] = {a.x, a.y};
  const float scale = ScalesOf(tile, padded_dim)[slot];
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    out[k] =
        static_cast<float>(static_cast<int8_t>(words[k / 4] >> k % 4 * 8)) *
        scale;
  }
}

// The scale of a vector of 8-bit numbers whose largest magnitude is given: of
// 16 significant bits, as quant/scaled_int8.h says. 0 of next to nothing.
__device__ inline float Int8Scale(float largest) {
  if (largest < 7.888609052210118e-31f) return 0;  // 2^-100
  const uint32_t bits = BitsOf(largest / 127);
  return FloatOf((bits + 0x7f + (bits >> 8 & 1)) & ~0xffu);
}

// Rounds number d of the token and stores it. Not of 8-bit numbers, which need
// the whole vector.
__device__ inline void StoreNumber(KvTile tile, int padded_dim, int slot, int d,
                                   float x) {
  const int i = slot * padded_dim + d;
  if (tile.dtype == KvDtype::kF32) {
    reinterpret_cast<float*>(tile.data)[i] = x;
  } else {
    reinterpret_cast<uint16_t*>(tile.data)[i] =
        tile.dtype == KvDtype::kF16 ? NarrowHalf(x) : NarrowBfloat(x);
  }
}

// Rounds a vector and stores it as the token in `slot`, by one warp.
// number(d) is asked by lane d % 32 alone.
template <class Number>
__device__ void StoreVector(KvTile tile, int head_dim, int padded_dim, int slot,
                            const Number& number) {
  const int lane = threadIdx.x % 32;
  if (tile.dtype != KvDtype::kInt8) {
    for (int d = lane; d < head_dim; d += 32) {
      StoreNumber(tile, padded_dim, slot, d, number(d));
    }
    return;
  }
  float largest = 0;
  bool finite = true;
  for (int d = lane; d < head_dim; d += 32) {
    const float x = fabsf(number(d));
    finite &= x <= 3.4028234663852886e38f;
    largest = fmaxf(largest, x);
  }
  largest = LargestOfWarp(largest);
  finite = LargestOfWarp(finite ? 0.0f : 1.0f) == 0;
  const float scale = finite ? Int8Scale(largest) : FloatOf(0x7fc00000u);
  const float inverse = finite && scale > 0 ? 1 / scale : 0;
  auto* const to = reinterpret_cast<int8_t*>(tile.data) + slot * padded_dim;
  for (int d = lane; d < head_dim; d += 32) {
    to[d] = inverse > 0 ? static_cast<int8_t>(rintf(number(d) * inverse)) : 0;
  }
  if (lane == 0) ScalesOf(tile, padded_dim)[slot] = scale;
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_KV_NUMBERS_H_
