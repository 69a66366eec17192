// Numbers for the tensor cores: pairs of half precision in a register, and
// powers of two that bring floats into its range.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_TENSOR_NUMBERS_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_TENSOR_NUMBERS_H_

#include <cstdint>

#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

inline constexpr float kLog2E = 1.4426950408889634f;

__device__ inline float PowerOfTwo(int exponent) {
  return FloatOf(static_cast<uint32_t>(exponent + 127) << 23);
}

// The e for which x / 2^e is below 2^15, and above 2^14 if that can be.
__device__ inline int ExponentOf(float x) {
  const int exponent = static_cast<int>(BitsOf(x) >> 23 & 0xff) - 127 - 14;
  return exponent < -100 ? -100 : exponent;
}

// Two numbers 1024 + n of half precision are the bits n under these, for
// n < 1024: integers become halves without a conversion.
inline constexpr uint32_t k1024s = 0x64006400;

// Two equal halves that are minus (1024 + n).
constexpr uint32_t Minus1024And(uint32_t n) {
  return (0xe400 + n) << 16 | (0xe400 + n);
}

// Two signed bytes plus 128, in bytes 0 and 2 of the word, as halves.
__device__ inline uint32_t PairOfBytes(uint32_t spread) {
  return AddPairs(spread | k1024s, Minus1024And(128));
}

// Two floats as sums of halves: together they keep 22 bits.
struct SplitPair {
  uint32_t high, low;

  __device__ SplitPair(float x, float y) : high(PairOf(x, y)) {
    low = PairOf(x - WidenHalf(static_cast<uint16_t>(high)),
                 y - WidenHalf(static_cast<uint16_t>(high >> 16)));
  }
};

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_TENSOR_NUMBERS_H_
