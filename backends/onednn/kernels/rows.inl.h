// Operations on rows of floats, in vectors of 16 that the compiler splits for
// narrower machines. Every step is one rounded operation (no contraction), so
// every instruction set gives the same bits.

typedef float V16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef int8_t B16 __attribute__((vector_size(16)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef uint16_t H16 __attribute__((vector_size(32)));

inline V16 Load16(const float* p) {
  V16 v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

inline void Store16(float* p, V16 v) { __builtin_memcpy(p, &v, sizeof(v)); }

inline V16 Broadcast16(float x) { return x - V16{}; }

// Reductions: lanes by halves, always in this order.
typedef float V8 __attribute__((vector_size(32)));
typedef float V4 __attribute__((vector_size(16)));
typedef int32_t I8 __attribute__((vector_size(32)));
typedef int32_t I4 __attribute__((vector_size(16)));

struct Adding {
  template <class T>
  static T Join(T a, T b) {
    return a + b;
  }
};

struct Maximum {
  template <class T>
  static T Join(T a, T b) {
    return b > a ? b : a;
  }
};

template <class Op, class T8, class T4, class T16>
inline auto Reduce(T16 v) {
  T8 halves[2];
  __builtin_memcpy(halves, &v, sizeof(v));
  const T8 eight = Op::Join(halves[0], halves[1]);
  T4 quarters[2];
  __builtin_memcpy(quarters, &eight, sizeof(eight));
  const T4 four = Op::Join(quarters[0], quarters[1]);
  const T4 two = Op::Join(four, __builtin_shuffle(four, I4{2, 3, 2, 3}));
  const T4 one = Op::Join(two, __builtin_shuffle(two, I4{1, 1, 1, 1}));
  return one[0];
}

inline float Sum16(V16 v) { return Reduce<Adding, V8, V4>(v); }
inline float Max16(V16 v) { return Reduce<Maximum, V8, V4>(v); }
inline int32_t Sum16(I16 v) { return Reduce<Adding, I8, I4>(v); }

// Adding 1.5 * 2^23 rounds to an integer, to nearest even, and leaves it in the
// low bits. For |x| < 2^22.
inline constexpr float kRound = 12582912.0f;

inline I16 RoundToInt(V16 x) {
  return (I16)(x + kRound) - (I16)Broadcast16(kRound);
}

// e^x within 2 units in the last place for x in [-87, 88], clamped beyond.
// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by its Taylor polynomial.
inline V16 Exp(V16 x) {
  x = x < -87.0f ? Broadcast16(-87.0f) : x;
  x = x > 88.0f ? Broadcast16(88.0f) : x;
  const V16 n = (x * 1.44269504f + kRound) - kRound;
  const V16 r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V16 p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const I16 exponent = (RoundToInt(n) + 127) << 23;
  return p * (V16)exponent;
}

void RmsNorm(const float* in, const float* weight, int n, float epsilon,
             float* out) {
  V16 squares[4] = {};
  int i = 0;
  for (; i + 64 <= n; i += 64) {
    for (int k = 0; k < 4; ++k) {
      const V16 x = Load16(in + i + 16 * k);
      squares[k] = squares[k] + x * x;
    }
  }
  float sum = Sum16((squares[0] + squares[1]) + (squares[2] + squares[3]));
  for (; i < n; ++i) sum += in[i] * in[i];
  const float scale =
      1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + epsilon);
  for (i = 0; i + 16 <= n; i += 16) {
    Store16(out + i, Load16(in + i) * scale * Load16(weight + i));
  }
  for (; i < n; ++i) out[i] = in[i] * scale * weight[i];
}

// Below this a block counts as zero: 127 / max would overflow.
inline constexpr float kTiny = 1e-36f;

inline void QuantiseBlock(const float* in, int b, int t,
                          const QuantisedPanel& panel) {
  const V16 x[2] = {Load16(in), Load16(in + 16)};
  V16 magnitude[2];
  for (int k = 0; k < 2; ++k) magnitude[k] = (V16)((I16)x[k] & 0x7fffffff);
  const float max =
      Max16(magnitude[0] > magnitude[1] ? magnitude[0] : magnitude[1]);
  const float inverse = max > kTiny ? 127.0f / max : 0.0f;
  const float d = max > kTiny ? max / 127.0f : 0.0f;
  I16 sums = {};
  int8_t q[32];
  for (int k = 0; k < 2; ++k) {
    const I16 rounded = RoundToInt(x[k] * inverse);
    const B16 bytes = __builtin_convertvector(rounded, B16);
    __builtin_memcpy(q + 16 * k, &bytes, 16);
    sums = sums + rounded;
  }
  const int32_t sum = Sum16(sums);
  int8_t* const to =
      panel.q + (static_cast<ptrdiff_t>(b) * 8 * panel.width + t) * 4;
  for (int j = 0; j < 8; ++j) {
    __builtin_memcpy(to + j * 4 * panel.width, q + 4 * j, 4);
  }
  const int at = b * panel.width + t;
  panel.d[at] = d;
  panel.s[at] = d * static_cast<float>(sum);
  panel.c[at] = -128 * sum;
}

void Quantise(const float* in, int blocks, int t, const QuantisedPanel& panel) {
  for (int b = 0; b < blocks; ++b) QuantiseBlock(in + 32 * b, b, t, panel);
}

void SiluMul(float* gate, const float* up, int n) {
  for (int i = 0; i < n; i += 16) {
    const V16 x = Load16(gate + i);
    Store16(gate + i, x / (1.0f + Exp(-x)) * Load16(up + i));
  }
}

void Rotate(const float* in, const float* cosines, const float* sines,
            float scale, int n, float* out) {
  const I16 swap = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
  for (int i = 0; i < n; i += 16) {
    const V16 x = Load16(in + i);
    const V16 turned = x * Load16(cosines + i) +
                       __builtin_shuffle(x, swap) * Load16(sines + i);
    Store16(out + i, turned * scale);
  }
}

void Softmax(float* scores, int first, int last, float* max, float* sum) {
  const I16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const V16 lowest = Broadcast16(-__builtin_inff());
  V16 x[kSegmentTiles];
  V16 top = lowest;
  for (int j = 0; j < kSegmentTiles; ++j) {
    const I16 p = lane + 16 * j;
    const I16 seen = (p >= first) & (p < last);
    x[j] = seen ? Load16(scores + 16 * j) : lowest;
    top = x[j] > top ? x[j] : top;
  }
  *max = Max16(top);
  V16 total = {};
  for (int j = 0; j < kSegmentTiles; ++j) {
    const I16 p = lane + 16 * j;
    const I16 seen = (p >= first) & (p < last);
    const V16 e = seen ? Exp(x[j] - *max) : V16{};
    Store16(scores + 16 * j, e);
    total = total + e;
  }
  *sum = Sum16(total);
}

void Merge(const float* part, float part_max, float part_sum, int head_dim,
           float* out, float* max, float* sum) {
  const float top = part_max > *max ? part_max : *max;
  V16 difference = {};
  difference[0] = *max - top;
  difference[1] = part_max - top;
  const V16 factors = Exp(difference);
  const float keep = factors[0], add = factors[1];
  for (int i = 0; i < head_dim; i += 16) {
    Store16(out + i, Load16(out + i) * keep + Load16(part + i) * add);
  }
  *max = top;
  *sum = *sum * keep + part_sum * add;
}

void AddProbabilities(const float* probabilities, const float* factors,
                      int heads, float weight, int n, float* sums) {
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    V16 sum = {};
    for (int h = 0; h < heads; ++h) {
      sum = sum + Load16(probabilities + kSegmentTokens * h + i) * factors[h];
    }
    Store16(sums + i, Load16(sums + i) + sum * weight);
  }
  for (; i < n; ++i) {
    float sum = 0;
    for (int h = 0; h < heads; ++h) {
      sum += probabilities[kSegmentTokens * h + i] * factors[h];
    }
    sums[i] += sum * weight;
  }
}

// Scales have 16 significant bits, to nearest even; a vector without a number
// of 2^-100 is zero, one with an infinity or a NaN is NaN.
float ToInt8(const float* in, int n, int8_t* out) {
  constexpr int32_t kSmallest = 27 << 23, kInfinity = 255 << 23;
  I16 top = {};
  for (int i = 0; i < n; i += 16) {
    const I16 magnitude = (I16)Load16(in + i) & 0x7fffffff;
    top = magnitude > top ? magnitude : top;
  }
  const int32_t largest = Reduce<Maximum, I8, I4>(top);
  if (largest < kSmallest || largest >= kInfinity) {
    for (int i = 0; i < n; ++i) out[i] = 0;
    return largest < kSmallest ? 0.0f : __builtin_nanf("");
  }
  float scale;
  __builtin_memcpy(&scale, &largest, sizeof(scale));
  scale = scale / 127.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &scale, sizeof(bits));
  bits = (bits + 0x7f + (bits >> 8 & 1)) & ~0xffu;
  __builtin_memcpy(&scale, &bits, sizeof(scale));
  const float inverse = 1.0f / scale;
  for (int i = 0; i < n; i += 16) {
    const B16 bytes =
        __builtin_convertvector(RoundToInt(Load16(in + i) * inverse), B16);
    __builtin_memcpy(out + i, &bytes, sizeof(bytes));
  }
  return scale;
}

// A bfloat16 is the upper half of a float: adding just less than half of its
// last bit, or just half if it is odd, rounds to nearest even. A NaN would turn
// into infinity if its lower half held all that makes it one.
void ToBf16(const float* in, int n, uint16_t* out) {
  for (int i = 0; i < n; i += 16) {
    const V16 x = Load16(in + i);
    U16 bits;
    __builtin_memcpy(&bits, &x, sizeof(bits));
    const U16 upper = bits >> 16;
    const U16 rounded = (bits + 0x7fff + (upper & 1)) >> 16;
    const U16 stored = x != x ? upper | 0x40 : rounded;
    const H16 halves = __builtin_convertvector(stored, H16);
    __builtin_memcpy(out + i, &halves, sizeof(halves));
  }
}
