// Operations on rows of floats, in vectors of 16 that the compiler splits for
// narrower machines. Every step is one rounded operation, a fused multiply-add
// where one is written and none elsewhere, so every instruction set gives the
// same bits.

typedef float V16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef int8_t B16 __attribute__((vector_size(16)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef int16_t W16 __attribute__((vector_size(32)));
typedef uint16_t H16 __attribute__((vector_size(32)));

inline V16 Load16(const float* p) {
  V16 v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

inline void Store16(float* p, V16 v) { __builtin_memcpy(p, &v, sizeof(v)); }

// The widest vectors of the machine. Of a conditional on wider ones compilers
// make one for each number.
#if defined(__AVX512F__)
inline constexpr int kNativeBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kNativeBytes = 32;
#else
inline constexpr int kNativeBytes = 16;
#endif
typedef float NativeF __attribute__((vector_size(kNativeBytes)));
typedef int32_t NativeI __attribute__((vector_size(kNativeBytes)));

template <class Native>
struct Natives {
  static constexpr int kCount = 64 / kNativeBytes;

  template <class V>
  explicit Natives(V v) {
    __builtin_memcpy(of, &v, sizeof(of));
  }
  Native of[kCount];
};

// What `choose` makes of each of the native vectors of some of 16 numbers.
template <class Native, class V, class Choose, class... Vs>
inline V InNatives(Choose choose, V first, Vs... others) {
  if constexpr (kNativeBytes == 64) {
    return choose(first, others...);
  } else {
    Natives<Native> made(first);
    [&](const auto&... parts) {
      for (int k = 0; k < made.kCount; ++k) {
        made.of[k] = choose(made.of[k], parts.of[k]...);
      }
    }(Natives<Native>(others)...);
    __builtin_memcpy(&first, made.of, sizeof(first));
    return first;
  }
}

inline V16 Broadcast16(float x) {
  return InNatives<NativeF>([x](NativeF zero) { return x - zero; }, V16{});
}

// b where it is smaller, else a.
inline V16 Smaller(V16 a, V16 b) {
  return InNatives<NativeF>([](NativeF a, NativeF b) { return b < a ? b : a; },
                            a, b);
}

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

struct Maximum {  // the second where it is larger, else the first
  template <class T>
  static T Join(T a, T b) {
    return b > a ? b : a;
  }
};

inline V16 Larger(V16 a, V16 b) {
  return InNatives<NativeF>(Maximum::Join<NativeF>, a, b);
}
inline I16 Larger(I16 a, I16 b) {
  return InNatives<NativeI>(Maximum::Join<NativeI>, a, b);
}

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

// Numbers that fit, in fewer bits.
#if defined(__AVX512F__)
inline B16 ToBytes(I16 x) { return __builtin_convertvector(x, B16); }
inline W16 ToWords(I16 x) { return __builtin_convertvector(x, W16); }
#else
inline W16 ToWords(I16 x) {
  __m128i quarters[4], halves[2];
  __builtin_memcpy(quarters, &x, sizeof(x));
  halves[0] = _mm_packs_epi32(quarters[0], quarters[1]);
  halves[1] = _mm_packs_epi32(quarters[2], quarters[3]);
  W16 words;
  __builtin_memcpy(&words, halves, sizeof(words));
  return words;
}
inline B16 ToBytes(I16 x) {
  const W16 words = ToWords(x);
  __m128i halves[2];
  __builtin_memcpy(halves, &words, sizeof(words));
  return (B16)_mm_packs_epi16(halves[0], halves[1]);
}
#endif

// a * b + c, rounded once.
inline V16 MultiplyAdd(V16 a, V16 b, V16 c) {
  float x[16], y[16], sums[16];
  Store16(x, a);
  Store16(y, b);
  Store16(sums, c);
  for (int i = 0; i < 16; ++i) sums[i] = __builtin_fmaf(x[i], y[i], sums[i]);
  return Load16(sums);
}

// e^x within 2 units in the last place for x in [-87, 88], clamped beyond.
// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by its Taylor polynomial.
inline __attribute__((always_inline)) V16 Exp(V16 x) {
  x = Smaller(Larger(x, Broadcast16(-87.0f)), Broadcast16(88.0f));
  // n in the lowest bits, as in RoundToInt.
  const V16 shifted =
      MultiplyAdd(x, Broadcast16(1.44269504f), Broadcast16(kRound));
  const V16 n = shifted - kRound;
  V16 r = MultiplyAdd(n, Broadcast16(-0.693359375f), x);
  r = MultiplyAdd(n, Broadcast16(2.12194440e-4f), r);
  V16 p = MultiplyAdd(r, Broadcast16(1.0f / 5040), Broadcast16(1.0f / 720));
  p = MultiplyAdd(p, r, Broadcast16(1.0f / 120));
  p = MultiplyAdd(p, r, Broadcast16(1.0f / 24));
  p = MultiplyAdd(p, r, Broadcast16(1.0f / 6));
  p = MultiplyAdd(p, r, Broadcast16(0.5f));
  p = MultiplyAdd(p, r, Broadcast16(1.0f));
  p = MultiplyAdd(p, r, Broadcast16(1.0f));
  return p * (V16)(((I16)shifted << 23) + (127 << 23));
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

inline float LargestOf32(const float* in) {
  const V16 x = Load16(in), y = Load16(in + 16);
  const V16 a = (V16)((I16)x & 0x7fffffff), b = (V16)((I16)y & 0x7fffffff);
  return Max16(Larger(b, a));
}

// Writes a block's bytes, 4 at a time, and returns their sum.
inline int32_t QuantiseBlock(const float* in, float inverse, int width,
                             int8_t* out) {
  const V16 factor = Broadcast16(inverse);
  I16 sums = {};
  int8_t q[32];
  for (int k = 0; k < 2; ++k) {
    const I16 rounded = RoundToInt(Load16(in + 16 * k) * factor);
    const B16 bytes = ToBytes(rounded);
    __builtin_memcpy(q + 16 * k, &bytes, 16);
    sums = sums + rounded;
  }
  for (int j = 0; j < 8; ++j) {
    __builtin_memcpy(out + j * 4 * width, q + 4 * j, 4);
  }
  return Sum16(sums);
}

// Sixteen blocks at a time: their scales are computed together.
void Quantise(const float* in, int blocks, int t, const QuantisedPanel& panel) {
  const int width = panel.width;
  for (int first = 0; first < blocks; first += 16) {
    const int n = blocks - first < 16 ? blocks - first : 16;
    const float* const from = in + 32 * first;
    float largest[16] = {}, d[16], inverse[16];
    for (int b = 0; b < n; ++b) largest[b] = LargestOf32(from + 32 * b);
    const V16 max = Load16(largest);
    const auto unless_tiny = [](NativeF x, NativeF max) {
      return max > kTiny ? x : NativeF{};
    };
    Store16(d, InNatives<NativeF>(unless_tiny, max / 127.0f, max));
    Store16(inverse, InNatives<NativeF>(unless_tiny, 127.0f / max, max));
    int8_t* const q =
        panel.q + (static_cast<ptrdiff_t>(first) * 8 * width + t) * 4;
    for (int b = 0; b < n; ++b) {
      const int32_t sum =
          QuantiseBlock(from + 32 * b, inverse[b], width,
                        q + static_cast<ptrdiff_t>(b) * 32 * width);
      const int at = (first + b) * width + t;
      panel.d[at] = d[b];
      panel.s[at] = d[b] * static_cast<float>(sum);
      panel.c[at] = -128 * sum;
    }
  }
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

inline bool SeesAll(const SeenPositions& seen) {
  return seen.first == 0 && seen.last == kSegmentTokens;
}

// Sixteen numbers from p on, `other` where they are not seen.
inline V16 Seen16(V16 x, int p, const SeenPositions& seen, V16 other) {
  const V16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const float first = static_cast<float>(seen.first - p);
  const float last = static_cast<float>(seen.last - p);
  return InNatives<NativeF>(
      [=](NativeF x, NativeF other, NativeF lane) {
        return (lane >= first) & (lane < last) ? x : other;
      },
      x, other, lane);
}

inline float LargestSeen(const float* scores, const SeenPositions& seen) {
  const V16 nothing = Broadcast16(-__builtin_inff());
  if (SeesAll(seen)) {
    const V16 a = Load16(scores), b = Load16(scores + 16);
    const V16 c = Load16(scores + 32), d = Load16(scores + 48);
    return Max16(Larger(Larger(a, b), Larger(c, d)));
  }
  V16 top = nothing;
  for (int p = seen.first & ~15; p < seen.last; p += 16) {
    const V16 x = Seen16(Load16(scores + p), p, seen, nothing);
    top = Larger(top, x);
  }
  return Max16(top);
}

// Turns scores into exponentials and returns their sum.
inline float Exponentials(float* scores, const SeenPositions& seen, float max) {
  if (SeesAll(seen)) {
    V16 e[kSegmentTiles];
#pragma GCC unroll 4
    for (int j = 0; j < kSegmentTiles; ++j) {
      e[j] = Exp(Load16(scores + 16 * j) - max);
      Store16(scores + 16 * j, e[j]);
    }
    return Sum16(((e[0] + e[1]) + e[2]) + e[3]);
  }
  const int begin = seen.first & ~15;
  int p = 0;
  for (; p < begin; p += 16) Store16(scores + p, V16{});
  V16 total = {};
  for (; p < seen.last; p += 16) {
    const V16 e = Seen16(Exp(Load16(scores + p) - max), p, seen, V16{});
    Store16(scores + p, e);
    total = total + e;
  }
  for (; p < kSegmentTokens; p += 16) Store16(scores + p, V16{});
  return Sum16(total);
}

// All maxima first: what one query waits for, the next ones do not.
void Softmax(float* scores, const SeenPositions* seen, int n, float* max,
             float* sum) {
  for (int i = 0; i < n; ++i) {
    max[i] = LargestSeen(scores + i * kSegmentTokens, seen[i]);
  }
  for (int i = 0; i < n; ++i) {
    sum[i] = Exponentials(scores + i * kSegmentTokens, seen[i], max[i]);
  }
}

void Merge(const AttentionPart& part, int n, int head_dim,
           const AttentionPart& to) {
  for (int first = 0; first < n; first += 16) {
    const int rows = n - first < 16 ? n - first : 16;
    V16 old_max = {}, new_max = {};
    __builtin_memcpy(&old_max, to.max + first, rows * sizeof(float));
    __builtin_memcpy(&new_max, part.max + first, rows * sizeof(float));
    const V16 top = Larger(old_max, new_max);
    const V16 keep = Exp(old_max - top), add = Exp(new_max - top);
    for (int k = 0; k < rows; ++k) {
      const int i = first + k;
      if (part.max[i] == -__builtin_inff()) continue;
      float* const out = to.out + i * head_dim;
      for (int d = 0; d < head_dim; d += 16) {
        Store16(out + d, Load16(out + d) * keep[k] +
                             Load16(part.out + i * head_dim + d) * add[k]);
      }
      to.max[i] = top[k];
      to.sum[i] = to.sum[i] * keep[k] + part.sum[i] * add[k];
    }
  }
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

// A vector without a number of 2^-100 is zero, one with an infinity or a NaN is
// NaN: so says the largest magnitude, as an integer that NaN makes largest.
inline constexpr int32_t kSmallest = 27 << 23, kInfinity = 255 << 23;

inline int32_t LargestMagnitude(const float* in, int n) {
  I16 top = {};
  for (int i = 0; i < n; i += 16) {
    const I16 magnitude = (I16)Load16(in + i) & 0x7fffffff;
    top = Larger(top, magnitude);
  }
  return Reduce<Maximum, I8, I4>(top);
}

inline float FloatOf(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}

template <auto kNarrow, class Out>
inline float RoundedBy(float scale, const float* in, int n, Out* out) {
  const V16 inverse = Broadcast16(1.0f / scale);
  for (int i = 0; i < n; i += 16) {
    const auto rounded = kNarrow(RoundToInt(Load16(in + i) * inverse));
    __builtin_memcpy(out + i, &rounded, sizeof(rounded));
  }
  return scale;
}

template <class Out>
inline float RoundedToNothing(int32_t largest, int n, Out* out) {
  for (int i = 0; i < n; ++i) out[i] = 0;
  return largest < kSmallest ? 0.0f : __builtin_nanf("");
}

// Scales have 16 significant bits, to nearest even.
float ToInt8(const float* in, int n, int8_t* out) {
  const int32_t largest = LargestMagnitude(in, n);
  if (largest < kSmallest || largest >= kInfinity) {
    return RoundedToNothing(largest, n, out);
  }
  const float scale = FloatOf(largest) / 127.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &scale, sizeof(bits));
  bits = (bits + 0x7f + (bits >> 8 & 1)) & ~0xffu;
  return RoundedBy<ToBytes>(FloatOf(bits), in, n, out);
}

// The largest magnitude becomes `limit`.
inline float RoundToWords(const float* in, int n, float limit, int16_t* out) {
  const int32_t largest = LargestMagnitude(in, n);
  if (largest < kSmallest || largest >= kInfinity) {
    return RoundedToNothing(largest, n, out);
  }
  return RoundedBy<ToWords>(FloatOf(largest) / limit, in, n, out);
}

float RoundQuery(const float* in, int n, int16_t* out) {
  return RoundToWords(in, n, n > 512 ? 16383.0f : 32767.0f, out);
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
