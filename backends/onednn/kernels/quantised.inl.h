// Matrix products of quantised weights for vector instruction sets. Included
// by each table's source after its `Isa`; what the tiles look like is said in
// ../packed_matrix.h.
//
// A vector lane is an output, so there is no horizontal sum and no shuffle.
// Per tile (16 outputs x 32 inputs) and token, on AVX-512 VNNI:
//
//   4-bit: 4 loads; and, shift, and (nibbles are unsigned, as vpdpbusd wants
//          its second operand); 8 vpdpbusd with the activations as broadcast
//          third operand; convert, d * dx, 1 or 2 fused multiply-adds
//   8-bit: 8 loads, 8 vpdpbusd on q + 128, the sum started at -128 * sum(x)
//
// 512 weights of one token are ~27 vector instructions, ~14 cycles, for 5 lines
// of memory that take 9 to 13 cycles to arrive: a single token is bound by
// memory, and the loop's business is to keep loads in flight. Eight tokens
// share loads and nibbles: 64 vpdpbusd and 24 to 32 float operations on two
// ports, which is 67 to 73 % of the peak of vpdpbusd.
//
// Integer sums are exact and below 2^24, blocks ascend, one fused multiply-add
// each: the bits do not depend on the instruction set or on `tokens`.

constexpr int kHalves = kGroupRows / Isa::kLanes;

// Token t of a panel and those behind it, at the current block. Pointers that
// advance, so that every address in a loop is a pointer and a constant.
template <int W>
struct Cursor {
  const int8_t* q;
  const float* d;
  const float* s;
  const int32_t* c;

  Cursor(const QuantisedPanel& x, int t)
      : q(x.q + 4 * t), d(x.d + t), s(x.s + t), c(x.c + t) {}
  void Advance() {
    q += 32 * W;
    d += W;
    s += W;
    c += W;
  }
};

// The sums of one block for NT tokens.
template <int NT>
struct BlockSums {
  Isa::Sum sums[NT][kHalves];

  void StartAtZero() {
#pragma GCC unroll 8
    for (int i = 0; i < NT; ++i) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) sums[i][h].StartAtZero();
    }
  }
  void StartAt(const int32_t* c, int shift) {
#pragma GCC unroll 8
    for (int i = 0; i < NT; ++i) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) sums[i][h].StartAt(c[i] >> shift);
    }
  }

  // Adds 16 x 32 products of nibbles.
  template <int W>
  void AddNibbles(const uint8_t* nibbles, const int8_t* q) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const Isa::I w = Isa::LoadBytes(nibbles + 64 * j + 4 * Isa::kLanes * h);
        const Isa::I low = Isa::LowNibbles(w), high = Isa::HighNibbles(w);
#pragma GCC unroll 8
        for (int i = 0; i < NT; ++i) {
          sums[i][h].AddNibbles(low, q + 4 * (j * W + i));
        }
#pragma GCC unroll 8
        for (int i = 0; i < NT; ++i) {
          sums[i][h].AddNibbles(high, q + 4 * ((j + 4) * W + i));
        }
      }
    }
  }

  template <int W>
  void AddBytes(const uint8_t* bytes, const int8_t* q) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const Isa::I w = Isa::LoadBytes(bytes + 64 * j + 4 * Isa::kLanes * h);
#pragma GCC unroll 8
        for (int i = 0; i < NT; ++i) {
          sums[i][h].AddBytes(w, q + 4 * (j * W + i));
        }
      }
    }
  }
};

// What becomes of the tokens' outputs.
template <int NT>
struct Outputs {
  Isa::F acc[NT][kHalves] = {};

  void AddMinima(const uint8_t* minima, const float* s) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const Isa::F m = Isa::LoadHalf(minima + 2 * Isa::kLanes * h);
#pragma GCC unroll 8
      for (int i = 0; i < NT; ++i) {
        acc[i][h] = Isa::Fma(m, Isa::Set1(s[i]), acc[i][h]);
      }
    }
  }
  void AddScaled(const uint8_t* scales, const float* d,
                 const BlockSums<NT>& block) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const Isa::F weight = Isa::LoadHalf(scales + 2 * Isa::kLanes * h);
#pragma GCC unroll 8
      for (int i = 0; i < NT; ++i) {
        acc[i][h] = Isa::Fma(Isa::Mul(weight, Isa::Set1(d[i])),
                             Isa::ToFloat(block.sums[i][h].Total()), acc[i][h]);
      }
    }
  }
  void Store(float* out, ptrdiff_t stride) const {
    for (int i = 0; i < NT; ++i) {
      for (int h = 0; h < kHalves; ++h) {
        Isa::Store(out + i * stride + h * Isa::kLanes, acc[i][h]);
      }
    }
  }
};

// A group's stream is fetched ahead in two steps: far ahead into the
// second-level cache, which waits for memory, then near into the first. One
// step alone, of any distance, streams at two thirds of that. Only the first
// panel of tokens meets a group that is not in a cache yet.
constexpr int kFarAhead = 8192;
constexpr int kNearAhead = 1024;

template <bool kFetch>
inline void Prefetch(const uint8_t* tile, int bytes) {
  if constexpr (kFetch) {
#pragma GCC unroll 10
    for (int i = 0; i < bytes; i += 64) {
      __builtin_prefetch(tile + kFarAhead + i, 0, 2);
      __builtin_prefetch(tile + kNearAhead + i, 0, 3);
    }
  }
}

struct Q4_1 {
  template <int NT, int W, bool kFetch>
  static void Run(const uint8_t* tile, int blocks, Cursor<W> x, float* out,
                  ptrdiff_t stride) {
    Outputs<NT> outputs;
    for (int b = 0; b < blocks; ++b, tile += 320, x.Advance()) {
      Prefetch<kFetch>(tile, 320);
      BlockSums<NT> block;
      block.StartAtZero();
      block.template AddNibbles<W>(tile + 64, x.q);
      outputs.AddMinima(tile + 32, x.s);
      outputs.AddScaled(tile, x.d, block);
    }
    outputs.Store(out, stride);
  }
};

// Formats without a minimum keep tiles in pairs: 2 x 16 scales, 2 x quants.
// The sum starts at c or c / 16, which undoes the offset of the quants.

struct Q4_0 {
  template <int NT, int W, bool kFetch>
  static void Run(const uint8_t* group, int blocks, Cursor<W> x, float* out,
                  ptrdiff_t stride) {
    Outputs<NT> outputs;
    for (int b = 0; b < blocks; ++b, x.Advance()) {
      const uint8_t* const pair = group + (b / 2) * 576;
      const uint8_t* const quants = pair + 64 + (b % 2) * 256;
      Prefetch<kFetch>(quants, 288);
      BlockSums<NT> block;
      block.StartAt(x.c, 4);  // -8 * sum of q
      block.template AddNibbles<W>(quants, x.q);
      outputs.AddScaled(pair + (b % 2) * 32, x.d, block);
    }
    outputs.Store(out, stride);
  }
};

struct Q8_0 {
  template <int NT, int W, bool kFetch>
  static void Run(const uint8_t* group, int blocks, Cursor<W> x, float* out,
                  ptrdiff_t stride) {
    Outputs<NT> outputs;
    for (int b = 0; b < blocks; ++b, x.Advance()) {
      const uint8_t* const pair = group + (b / 2) * 1088;
      const uint8_t* const quants = pair + 64 + (b % 2) * 512;
      Prefetch<kFetch>(quants, 544);
      BlockSums<NT> block;
      if constexpr (Isa::kBytesNeedOffset) {
        block.StartAt(x.c, 0);  // -128 * sum of q
      } else {
        block.StartAtZero();
      }
      block.template AddBytes<W>(quants, x.q);
      outputs.AddScaled(pair + (b % 2) * 32, x.d, block);
    }
    outputs.Store(out, stride);
  }
};

// Takes the tokens of a panel in passes of as many as the registers hold.
template <class Format, bool kFetch, int NT>
inline void Pass(const uint8_t* group, int blocks, const QuantisedPanel& x,
                 int t, int tokens, float* out, ptrdiff_t stride) {
  if constexpr (NT > 1) {
    if (tokens < NT) {
      return Pass<Format, kFetch, NT - 1>(group, blocks, x, t, tokens, out,
                                          stride);
    }
  }
  Format::template Run<NT, kPanelTokens, kFetch>(
      group, blocks, Cursor<kPanelTokens>(x, t), out, stride);
}

template <class Format>
void Product(const uint8_t* group, int blocks, const QuantisedPanel& x,
             int tokens, float* out, ptrdiff_t stride) {
  if (x.width == 1) {
    return Format::template Run<1, 1, true>(group, blocks, Cursor<1>(x, 0), out,
                                            stride);
  }
  for (int t = 0; t < tokens; t += Isa::kTokens) {
    const auto pass = x.first && t == 0 ? Pass<Format, true, Isa::kTokens>
                                        : Pass<Format, false, Isa::kTokens>;
    pass(group, blocks, x, t, tokens - t, out + t * stride, stride);
  }
}
