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

// The sums of one block for NT tokens from `t` on.
template <int NT>
struct BlockSums {
  typename Isa::Sum sums[NT][kHalves];
};

template <int NT>
inline void AddScaled(const QuantisedPanel& x, int b, int t, Isa::F d, int h,
                      const BlockSums<NT>& block, Isa::F (&acc)[NT][kHalves]) {
#pragma GCC unroll 8
  for (int i = 0; i < NT; ++i) {
    const Isa::F scale = Isa::Mul(d, Isa::Set1(x.d[b * x.width + t + i]));
    acc[i][h] =
        Isa::Fma(scale, Isa::ToFloat(block.sums[i][h].Total()), acc[i][h]);
  }
}

// Adds 16 x 32 products of nibbles for NT tokens.
template <int NT, int W>
inline void AddNibbles(const uint8_t* nibbles, const int8_t* q, int t,
                       BlockSums<NT>& block) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const Isa::I w = Isa::LoadBytes(nibbles + 64 * j + 4 * Isa::kLanes * h);
      const Isa::I low = Isa::LowNibbles(w), high = Isa::HighNibbles(w);
#pragma GCC unroll 8
      for (int i = 0; i < NT; ++i) {
        block.sums[i][h].AddNibbles(low, q + 4 * (j * W + t + i));
        block.sums[i][h].AddNibbles(high, q + 4 * ((j + 4) * W + t + i));
      }
    }
  }
}

template <int NT, int W>
inline void AddBytes(const uint8_t* bytes, const int8_t* q, int t,
                     BlockSums<NT>& block) {
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const Isa::I w = Isa::LoadBytes(bytes + 64 * j + 4 * Isa::kLanes * h);
#pragma GCC unroll 8
      for (int i = 0; i < NT; ++i) {
        block.sums[i][h].AddBytes(w, q + 4 * (j * W + t + i));
      }
    }
  }
}

template <int NT>
inline void Store(const Isa::F (&acc)[NT][kHalves], float* out,
                  ptrdiff_t stride) {
  for (int i = 0; i < NT; ++i) {
    for (int h = 0; h < kHalves; ++h) {
      Isa::Store(out + i * stride + h * Isa::kLanes, acc[i][h]);
    }
  }
}

// Bytes that the stream is fetched ahead; the distance hardly matters.
constexpr int kAhead = 4096;

template <int NT>
inline void Prefetch(const uint8_t* tile, int bytes) {
  if constexpr (NT == 1) {
#pragma GCC unroll 10
    for (int i = 0; i < bytes; i += 64) {
      __builtin_prefetch(tile + kAhead + i);
    }
  }
}

struct Q4_1 {
  template <int NT, int W>
  static void Run(const uint8_t* tile, int blocks, const QuantisedPanel& x,
                  int t, float* out, ptrdiff_t stride) {
    Isa::F acc[NT][kHalves] = {};
    for (int b = 0; b < blocks; ++b, tile += 320) {
      Prefetch<NT>(tile, 320);
      BlockSums<NT> block;
      for (int i = 0; i < NT; ++i) {
        for (int h = 0; h < kHalves; ++h) block.sums[i][h].StartAtZero();
      }
      AddNibbles<NT, W>(tile + 64, x.q + b * 32 * W, t, block);
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        const Isa::F m = Isa::LoadHalf(tile + 32 + 2 * Isa::kLanes * h);
#pragma GCC unroll 8
        for (int i = 0; i < NT; ++i) {
          acc[i][h] = Isa::Fma(m, Isa::Set1(x.s[b * W + t + i]), acc[i][h]);
        }
        AddScaled(x, b, t, Isa::LoadHalf(tile + 2 * Isa::kLanes * h), h, block,
                  acc);
      }
    }
    Store(acc, out, stride);
  }
};

// Formats without a minimum keep tiles in pairs: 2 x 16 scales, 2 x quants.
// The sum starts at c or c / 16, which undoes the offset of the quants.

template <int NT>
inline void StartSums(const QuantisedPanel& x, int b, int t, int shift,
                      BlockSums<NT>& block) {
#pragma GCC unroll 8
  for (int i = 0; i < NT; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      block.sums[i][h].StartAt(x.c[b * x.width + t + i] >> shift);
    }
  }
}

struct Q4_0 {
  template <int NT, int W>
  static void Run(const uint8_t* group, int blocks, const QuantisedPanel& x,
                  int t, float* out, ptrdiff_t stride) {
    Isa::F acc[NT][kHalves] = {};
    for (int b = 0; b < blocks; ++b) {
      const uint8_t* pair = group + (b / 2) * 576;
      const uint8_t* quants = pair + 64 + (b % 2) * 256;
      Prefetch<NT>(quants, 288);
      BlockSums<NT> block;
      StartSums(x, b, t, 4, block);  // -8 * sum of q
      AddNibbles<NT, W>(quants, x.q + b * 32 * W, t, block);
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        AddScaled(x, b, t,
                  Isa::LoadHalf(pair + (b % 2) * 32 + 2 * Isa::kLanes * h), h,
                  block, acc);
      }
    }
    Store(acc, out, stride);
  }
};

struct Q8_0 {
  template <int NT, int W>
  static void Run(const uint8_t* group, int blocks, const QuantisedPanel& x,
                  int t, float* out, ptrdiff_t stride) {
    Isa::F acc[NT][kHalves] = {};
    for (int b = 0; b < blocks; ++b) {
      const uint8_t* pair = group + (b / 2) * 1088;
      const uint8_t* quants = pair + 64 + (b % 2) * 512;
      Prefetch<NT>(quants, 544);
      BlockSums<NT> block;
      if constexpr (Isa::kBytesNeedOffset) {
        StartSums(x, b, t, 0, block);  // -128 * sum of q
      } else {
        for (int i = 0; i < NT; ++i) {
          for (int h = 0; h < kHalves; ++h) block.sums[i][h].StartAtZero();
        }
      }
      AddBytes<NT, W>(quants, x.q + b * 32 * W, t, block);
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        AddScaled(x, b, t,
                  Isa::LoadHalf(pair + (b % 2) * 32 + 2 * Isa::kLanes * h), h,
                  block, acc);
      }
    }
    Store(acc, out, stride);
  }
};

// Takes the tokens of a panel in passes of as many as the registers hold.
template <class Format, int NT>
inline void Pass(const uint8_t* group, int blocks, const QuantisedPanel& x,
                 int t, int tokens, float* out, ptrdiff_t stride) {
  if constexpr (NT > 1) {
    if (tokens < NT) {
      return Pass<Format, NT - 1>(group, blocks, x, t, tokens, out, stride);
    }
  }
  Format::template Run<NT, kPanelTokens>(group, blocks, x, t, out, stride);
}

template <class Format>
void Product(const uint8_t* group, int blocks, const QuantisedPanel& x,
             int tokens, float* out, ptrdiff_t stride) {
  if (x.width == 1) {
    return Format::template Run<1, 1>(group, blocks, x, 0, out, stride);
  }
  for (int t = 0; t < tokens; t += Isa::kTokens) {
    Pass<Format, Isa::kTokens>(group, blocks, x, t, tokens - t,
                               out + t * stride, stride);
  }
}
