// Attention over one segment of 64 positions, for several queries at once: the
// heads that share a KV head, and in prefill several rows, so that a key is
// loaded and widened once for all of them.
//
// Scores: lane = position. Per d, a vector of keys for each tile and a
// broadcast of each query: AVX-512 holds 6 queries x 4 tiles in 24
// accumulators, so 4 loads feed 24 fused multiply-adds. With 3 queries (one
// token of 9 heads over 3) 12 independent chains hide the latency of 4 cycles.
// Values: lane = d; per position a row of the tile and a broadcast probability.
//
// Keys and values of 8 bits meet queries and probabilities rounded to 16, two
// neighbours at a time:
//
//   lane   | k[d][p] k[d+1][p] |   16 bits each, from two rows of bytes
//   query  | q[d]    q[d+1]    |   broadcast
//
// vpdpwssd, or vpmaddwd and vpaddd, adds both products to a 32-bit sum that is
// exact, so one instruction does the work of two fused multiply-adds and every
// instruction set gives the same bits. The scale of a token's key meets its
// finished score, and that of its value the probability before it is rounded.
//
// Every tile lies in another page, so no hardware fetches it ahead. While a
// segment's scores are computed the next segment's keys are fetched, and so are
// values, a line every few operations: all at once, 136 lines in 8 bits, they
// are more than a core can wait for.

// Tiles are [head_dim][16] (keys) and [16][head_dim] (values); scales follow.
template <class T>
inline constexpr bool kScaled = false;
template <>
inline constexpr bool kScaled<int8_t> = true;

template <class T>
inline int TileBytes(int head_dim) {
  return 16 * head_dim * static_cast<int>(sizeof(T)) + (kScaled<T> ? 64 : 0);
}

inline const float* ScalesOf(const void* tile, int head_dim) {
  return reinterpret_cast<const float*>(static_cast<const int8_t*>(tile) +
                                        16 * head_dim);
}

// How numbers of a tile are multiplied by factors and added up.
template <class T>
struct Terms {  // one at a time, as floats
  using Factor = float;
  using Vector = Isa::F;
  static constexpr int kNumbers = 1;

  static Vector Load(const T* p, int) { return Isa::Load(p); }
  static Vector Repeat(const float* factor) { return Isa::Set1(*factor); }
  static Vector Add(Vector sum, Vector x, Vector factor) {
    return Isa::Fma(x, factor, sum);
  }
};

template <>
struct Terms<int8_t> {  // two at a time, as integers
  using Factor = int16_t;
  using Vector = Isa::P;
  static constexpr int kNumbers = 2;

  // Those at `p` and those `stride` behind them.
  static Vector Load(const int8_t* p, int stride) {
    return Isa::LoadPairs(p, p + stride);
  }
  static Vector Repeat(const int16_t* factors) {
    return Isa::RepeatPair(factors);
  }
  static Vector Add(Vector sum, Vector x, Vector factors) {
    return Isa::AddPairs(sum, x, factors);
  }
};

// Tiles of the segment that comes next, fetched line by line while the present
// one is computed with: all at once they would be more than a core can wait
// for.
template <class T>
class Ahead {
 public:
  // `tiles` may be null: there is none.
  Ahead(const void* const* tiles, int head_dim)
      : tiles_(tiles), head_dim_(head_dim) {}

  // Numbers 16 d .. 16 d + 15 of each tile.
  void FetchSixteen(int d) const {
    constexpr int kSixteensPerLine = 64 / (16 * sizeof(T));
    if (tiles_ == nullptr || d % kSixteensPerLine != 0) return;
    for (int j = 0; j < kSegmentTiles; ++j) Fetch(j, 16 * sizeof(T) * d);
  }
  // `bytes` of row p of the segment, where tiles are [16][head_dim].
  void FetchRow(int p, int at, int bytes) const {
    if (tiles_ == nullptr) return;
    for (int b = 0; b < bytes; b += 64) {
      Fetch(p / 16, (p % 16 * head_dim_ + at) * sizeof(T) + b);
    }
  }
  void FetchScales() const {
    if (tiles_ == nullptr || !kScaled<T>) return;
    for (int j = 0; j < kSegmentTiles; ++j) Fetch(j, 16 * head_dim_);
  }
  void FetchAll() const {
    if (tiles_ == nullptr) return;
    for (int at = 0; at < TileBytes<T>(head_dim_); at += 64) {
      for (int j = 0; j < kSegmentTiles; ++j) Fetch(j, at);
    }
  }

 private:
  void Fetch(int tile, size_t at) const {
    __builtin_prefetch(static_cast<const char*>(tiles_[tile]) + at);
  }

  const void* const* const tiles_;
  const int head_dim_;
};

// Scores of Q queries against kTiles tiles from `j` on; `scales` are those of
// the queries, where they are rounded.
template <class T, int Q, int kTiles>
inline void ScoreTiles(const typename Terms<T>::Factor* queries,
                       const float* scales, int head_dim,
                       const void* const* keys, int j, const Ahead<T>& ahead,
                       float* scores) {
  using Sum = typename Terms<T>::Vector;
  constexpr int kPerTile = 16 / Isa::kLanes;
  constexpr int kVectors = kTiles * kPerTile;
  const T* tile[kTiles];
  for (int k = 0; k < kTiles; ++k) tile[k] = static_cast<const T*>(keys[j + k]);
  Sum acc[Q][kVectors] = {};
  for (int d = 0; d < head_dim; d += Terms<T>::kNumbers) {
    ahead.FetchSixteen(d);
    Sum key[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      key[v] = Terms<T>::Load(
          tile[v / kPerTile] + 16 * d + Isa::kLanes * (v % kPerTile), 16);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Q; ++i) {
      const Sum query = Terms<T>::Repeat(queries + i * head_dim + d);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        acc[i][v] = Terms<T>::Add(acc[i][v], key[v], query);
      }
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      float* const to = scores + i * kSegmentTokens + 16 * j + Isa::kLanes * v;
      if constexpr (kScaled<T>) {
        const Isa::F scale = Isa::Load(ScalesOf(tile[v / kPerTile], head_dim) +
                                       Isa::kLanes * (v % kPerTile));
        Isa::Store(to, Isa::ToFloat(acc[i][v]) * (scale * scales[i]));
      } else {
        Isa::Store(to, acc[i][v]);
      }
    }
  }
}

template <class T, int Q>
inline void ScorePass(const typename Terms<T>::Factor* queries,
                      const float* scales, int n, int head_dim,
                      const void* const* keys, int begin, int end,
                      const void* const* next_keys, float* scores) {
  if constexpr (Q > 1) {
    if (n < Q) {
      return ScorePass<T, Q - 1>(queries, scales, n, head_dim, keys, begin, end,
                                 next_keys, scores);
    }
  }
  int j = begin;
  for (; j + Isa::kScoreTiles <= end; j += Isa::kScoreTiles) {
    const Ahead<T> ahead(j == begin ? next_keys : nullptr, head_dim);
    ScoreTiles<T, Q, Isa::kScoreTiles>(queries, scales, head_dim, keys, j,
                                       ahead, scores);
  }
  for (; j < end; ++j) {
    const Ahead<T> ahead(j == begin ? next_keys : nullptr, head_dim);
    ScoreTiles<T, Q, 1>(queries, scales, head_dim, keys, j, ahead, scores);
  }
}

template <class T>
inline const typename Terms<T>::Factor* FactorsOf(const AttentionQueries& x) {
  if constexpr (kScaled<T>) {
    return x.rounded;
  } else {
    return x.floats;
  }
}

template <class T>
void Scores(const AttentionQueries& queries, int head_dim,
            const void* const* keys, int begin, int end,
            const void* const* next_keys, float* scores) {
  Ahead<T>(next_keys, head_dim).FetchScales();
  for (int i = 0; i < queries.n; i += Isa::kQueries) {
    ScorePass<T, Isa::kQueries>(FactorsOf<T>(queries) + i * head_dim,
                                kScaled<T> ? queries.scales + i : nullptr,
                                queries.n - i, head_dim, keys, begin, end,
                                i == 0 ? next_keys : nullptr,
                                scores + i * kSegmentTokens);
  }
}

// V vectors of the values, from `d` on, for Q queries.
template <class T, int Q, int V>
inline void ValueColumns(const typename Terms<T>::Factor* weights,
                         const float* scales, int head_dim, int d,
                         const void* const* values, int first, int last,
                         const Ahead<T>& ahead, float* out) {
  using Sum = typename Terms<T>::Vector;
  constexpr int kNumbers = Terms<T>::kNumbers;
  Sum acc[Q][V] = {};
  for (int p = first / kNumbers * kNumbers; p < last; p += kNumbers) {
    for (int k = 0; k < kNumbers; ++k) {
      ahead.FetchRow(p + k, d, V * Isa::kLanes * sizeof(T));
    }
    const T* row =
        static_cast<const T*>(values[p / 16]) + (p % 16) * head_dim + d;
    Sum value[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      value[v] = Terms<T>::Load(row + Isa::kLanes * v, head_dim);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Q; ++i) {
      const Sum weight = Terms<T>::Repeat(weights + i * kSegmentTokens + p);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        acc[i][v] = Terms<T>::Add(acc[i][v], value[v], weight);
      }
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int v = 0; v < V; ++v) {
      float* const to = out + i * head_dim + d + Isa::kLanes * v;
      if constexpr (kScaled<T>) {
        Isa::Store(to, Isa::ToFloat(acc[i][v]) * scales[i]);
      } else {
        Isa::Store(to, acc[i][v]);
      }
    }
  }
}

template <class T, int Q>
inline void ValuePass(const typename Terms<T>::Factor* weights,
                      const float* scales, int n, int head_dim,
                      const void* const* values, int first, int last,
                      const Ahead<T>& ahead, float* out) {
  if constexpr (Q > 1) {
    if (n < Q) {
      return ValuePass<T, Q - 1>(weights, scales, n, head_dim, values, first,
                                 last, ahead, out);
    }
  }
  constexpr int kWide = Isa::kValueVectors * Isa::kLanes;
  int d = 0;
  for (; d + kWide <= head_dim; d += kWide) {
    ValueColumns<T, Q, Isa::kValueVectors>(weights, scales, head_dim, d, values,
                                           first, last, ahead, out);
  }
  for (; d < head_dim; d += Isa::kLanes) {
    ValueColumns<T, Q, 1>(weights, scales, head_dim, d, values, first, last,
                          ahead, out);
  }
}

// Probabilities as they are multiplied by values of type T.
template <class T>
struct Weights {
  Weights(const void* const*, int, int, int) {}
  void Take(const float* probabilities, int) { factors = probabilities; }

  const float* factors = nullptr;
  const float* scales = nullptr;
};

// Each times the scale of its value, rounded to 16 bits.
template <>
struct Weights<int8_t> {
  Weights(const void* const* values, int head_dim, int first, int last) {
    for (int p = first & ~15; p < last; p += 16) {
      Store16(of_values + p, Load16(ScalesOf(values[p / 16], head_dim)));
    }
    for (int p = first & ~15; p < first; ++p) of_values[p] = 0;
    for (int p = last; p % 16 != 0; ++p) of_values[p] = 0;
  }
  void Take(const float* probabilities, int n) {
    for (int i = 0; i < n; ++i, probabilities += kSegmentTokens) {
      float scaled[kSegmentTokens];
      for (int p = 0; p < kSegmentTokens; p += 16) {
        Store16(scaled + p, Load16(probabilities + p) * Load16(of_values + p));
      }
      scales[i] = RoundToWords(scaled, kSegmentTokens, 32767.0f,
                               factors + i * kSegmentTokens);
    }
  }

  float of_values[kSegmentTokens] = {};  // 0 where nobody sees
  int16_t factors[Isa::kQueries * kSegmentTokens];
  float scales[Isa::kQueries];
};

template <class T>
void Values(const float* probabilities, int num_queries, int head_dim,
            const void* const* values, int first, int last,
            const void* const* next_values, float* out) {
  // Rows that are not visited here may be needed there.
  const bool visits_all = first == 0 && last == kSegmentTokens;
  const Ahead<T> all_ahead(next_values, head_dim);
  visits_all ? all_ahead.FetchScales() : all_ahead.FetchAll();
  Weights<T> weights(values, head_dim, first, last);
  for (int i = 0; i < num_queries; i += Isa::kQueries) {
    const Ahead<T> ahead(i == 0 && visits_all ? next_values : nullptr,
                         head_dim);
    const int n = num_queries - i;
    weights.Take(probabilities + i * kSegmentTokens,
                 n < Isa::kQueries ? n : Isa::kQueries);
    ValuePass<T, Isa::kQueries>(weights.factors, weights.scales, n, head_dim,
                                values, first, last, ahead, out + i * head_dim);
  }
}
