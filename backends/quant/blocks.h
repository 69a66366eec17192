// The blocks of quantised weights, byte for byte as GGUF files hold them.
//
// 32 consecutive values of a row share a scale d, and for Q4_1 a minimum m,
// both IEEE half precision (half.h). Of the two values in a byte of a 4-bit
// block, the low nibble is value i, the high nibble value i + 16.
//
//   Q8_0   w[i] = d * qs[i]            qs signed
//   Q4_0   w[i] = d * (nibble - 8)     nibble 0 .. 15
//   Q4_1   w[i] = d * nibble + m
#ifndef MILLRACE_BACKENDS_QUANT_BLOCKS_H_
#define MILLRACE_BACKENDS_QUANT_BLOCKS_H_

#include <cstdint>

namespace millrace::backends {

inline constexpr int kBlockSize = 32;  // values of a quantised block

// All fields have alignment 2 or 1, and files align tensors to 8 or more, so
// that bytes of a tensor may be read through these structures.
struct BlockQ8_0 {
  uint16_t d;  // half-precision scale
  int8_t qs[kBlockSize];
};

struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[kBlockSize / 2];
};

struct BlockQ4_1 {
  uint16_t d;
  uint16_t m;  // half-precision minimum
  uint8_t qs[kBlockSize / 2];
};

static_assert(sizeof(BlockQ8_0) == 34 && alignof(BlockQ8_0) == 2);
static_assert(sizeof(BlockQ4_0) == 18 && alignof(BlockQ4_0) == 2);
static_assert(sizeof(BlockQ4_1) == 20 && alignof(BlockQ4_1) == 2);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_QUANT_BLOCKS_H_
