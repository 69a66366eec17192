// Any x86-64 CPU: plain loops, and the definition of what the other tables
// compute.
#include <emmintrin.h>

#include <cmath>
#include <cstring>

#include "backends/onednn/kernels/kernels.h"
#include "backends/quant/half.h"

namespace millrace::backends::onednn {
namespace {

struct Bfloat16;

#include "backends/onednn/kernels/rows.inl.h"

// Four lanes: what every 64-bit CPU has.
struct Isa {
  typedef float F __attribute__((vector_size(16)));
  typedef int32_t P __attribute__((vector_size(16)));
  static constexpr int kLanes = 4;
  static constexpr int kQueries = 1;
  static constexpr int kScoreTiles = 1;
  static constexpr int kValueVectors = 4;

  static F Set1(float x) { return x - F{}; }
  static F Fma(F a, F b, F c) { return a * b + c; }
  static void Store(float* p, F x) { std::memcpy(p, &x, sizeof(x)); }

  static F Load(const float* p) {
    F x;
    std::memcpy(&x, p, sizeof(x));
    return x;
  }
  static F Load(const uint16_t* p) {
    return F{HalfToFloat(p[0]), HalfToFloat(p[1]), HalfToFloat(p[2]),
             HalfToFloat(p[3])};
  }
  static F Load(const Bfloat16* p) {
    uint16_t bits[4];
    std::memcpy(bits, p, sizeof(bits));
    return F{Bfloat16ToFloat(bits[0]), Bfloat16ToFloat(bits[1]),
             Bfloat16ToFloat(bits[2]), Bfloat16ToFloat(bits[3])};
  }
  static F Load(const int8_t* p) {
    return F{float(p[0]), float(p[1]), float(p[2]), float(p[3])};
  }
  static F ToFloat(P x) { return __builtin_convertvector(x, F); }
  static int32_t Pair(int16_t a, int16_t b) {
    return static_cast<uint16_t>(a) | static_cast<int32_t>(b) * 65536;
  }
  static P LoadPairs(const int8_t* a, const int8_t* b) {
    return P{Pair(a[0], b[0]), Pair(a[1], b[1]), Pair(a[2], b[2]),
             Pair(a[3], b[3])};
  }
  static P RepeatPair(const int16_t* pair) {
    return Pair(pair[0], pair[1]) - P{};
  }
  static P AddPairs(P sum, P x, P y) {
    return sum + (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
  }
  static void StoreHalf(uint16_t* p, F x) {
    for (int i = 0; i < kLanes; ++i) p[i] = FloatToHalf(x[i]);
  }
};

#include "backends/onednn/kernels/attention.inl.h"
#include "backends/onednn/kernels/float.inl.h"
#include "backends/onednn/kernels/rebase.inl.h"

uint16_t HalfAt(const uint8_t* p, int i) {
  uint16_t half;
  std::memcpy(&half, p + 2 * i, 2);
  return half;
}

// What a panel holds for token t: input i of block b, and the block's numbers.
struct Token {
  const QuantisedPanel& x;
  int t;

  int q(int b, int i) const {
    return x.q[((b * 8 + i / 4) * x.width + t) * 4 + i % 4];
  }
  float d(int b) const { return x.d[b * x.width + t]; }
  float s(int b) const { return x.s[b * x.width + t]; }
  int c(int b) const { return x.c[b * x.width + t]; }
};

// Sum over the 32 inputs of nibbles (as stored, 0 .. 15) times activations.
int NibbleSum(const uint8_t* nibbles, int r, const Token& x, int b) {
  int sum = 0;
  for (int i = 0; i < 16; ++i) {
    const int byte = nibbles[64 * (i / 4) + 4 * r + i % 4];
    sum += (byte & 15) * x.q(b, i) + (byte >> 4) * x.q(b, 16 + i);
  }
  return sum;
}

int ByteSum(const uint8_t* bytes, int r, const Token& x, int b) {
  int sum = 0;
  for (int i = 0; i < 32; ++i) {
    sum += bytes[64 * (i / 4) + 4 * r + i % 4] * x.q(b, i);
  }
  return sum;
}

struct Q4_1 {
  static float Add(float acc, const uint8_t* group, int b, int r,
                   const Token& x) {
    const uint8_t* const tile = group + b * 320;
    const float d = HalfToFloat(HalfAt(tile, r));
    const float m = HalfToFloat(HalfAt(tile + 32, r));
    acc = std::fma(m, x.s(b), acc);
    const int sum = NibbleSum(tile + 64, r, x, b);
    return std::fma(d * x.d(b), static_cast<float>(sum), acc);
  }
};

struct Q4_0 {
  static float Add(float acc, const uint8_t* group, int b, int r,
                   const Token& x) {
    const uint8_t* const pair = group + b / 2 * 576;
    const float d = HalfToFloat(HalfAt(pair + b % 2 * 32, r));
    const int sum = NibbleSum(pair + 64 + b % 2 * 256, r, x, b) + (x.c(b) >> 4);
    return std::fma(d * x.d(b), static_cast<float>(sum), acc);
  }
};

struct Q8_0 {
  static float Add(float acc, const uint8_t* group, int b, int r,
                   const Token& x) {
    const uint8_t* const pair = group + b / 2 * 1088;
    const float d = HalfToFloat(HalfAt(pair + b % 2 * 32, r));
    const int sum = ByteSum(pair + 64 + b % 2 * 512, r, x, b) + x.c(b);
    return std::fma(d * x.d(b), static_cast<float>(sum), acc);
  }
};

template <class Format>
void Product(const uint8_t* group, int blocks, const QuantisedPanel& x,
             int tokens, float* out, ptrdiff_t stride) {
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < kGroupRows; ++r) {
      float acc = 0;
      for (int b = 0; b < blocks; ++b) {
        acc = Format::Add(acc, group, b, r, Token{x, t});
      }
      out[t * stride + r] = acc;
    }
  }
}

#include "backends/onednn/kernels/table.inl.h"

}  // namespace

constinit const Kernels kScalarKernels = MakeKernels("scalar");

}  // namespace millrace::backends::onednn
