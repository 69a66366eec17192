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
// Every tile lies in another page, so no hardware fetches it ahead. While a
// segment's scores are computed the next segment's keys are fetched, and so are
// values, a line every few operations: all at once, 136 lines in 8 bits, they
// are more than a core can wait for.
//
// Numbers of 8 bits are read as they are, in half the bytes, and widened by two
// instructions; the scale of a token's key meets its finished score, and that
// of its value the probability before it is broadcast.

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

// Tiles of the segment that comes next, fetched line by line while the present
// one is computed with: all at once they would be more than a core can wait
// for.
template <class T>
class Ahead {
 public:
  // `tiles` may be null: there is none.
  Ahead(const void* const* tiles, int head_dim)
      : tiles_(tiles), head_dim_(head_dim) {}

  // Numbers 16 d .. 16 d + 15 of tiles j .. j + n - 1.
  void FetchSixteen(int j, int n, int d) const {
    constexpr int kSixteensPerLine = 64 / (16 * sizeof(T));
    if (tiles_ == nullptr || d % kSixteensPerLine != 0) return;
    for (int k = j; k < j + n; ++k) Fetch(k, 16 * sizeof(T) * d);
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

// Scores of Q queries against kTiles tiles from `j` on.
template <class T, int Q>
inline void ScoreTiles(const float* queries, int head_dim,
                       const void* const* keys, const Ahead<T>& ahead,
                       float* scores) {
  constexpr int kPerTile = 16 / Isa::kLanes;
  constexpr int kVectors = Isa::kScoreTiles * kPerTile;
  for (int j = 0; j < kSegmentTiles; j += Isa::kScoreTiles) {
    const T* tile[Isa::kScoreTiles];
    for (int k = 0; k < Isa::kScoreTiles; ++k) {
      tile[k] = static_cast<const T*>(keys[j + k]);
    }
    Isa::F acc[Q][kVectors] = {};
    for (int d = 0; d < head_dim; ++d) {
      ahead.FetchSixteen(j, Isa::kScoreTiles, d);
      Isa::F key[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        key[v] = Isa::Load(tile[v / kPerTile] + 16 * d +
                           Isa::kLanes * (v % kPerTile));
      }
#pragma GCC unroll 8
      for (int i = 0; i < Q; ++i) {
        const Isa::F query = Isa::Set1(queries[i * head_dim + d]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          acc[i][v] = Isa::Fma(key[v], query, acc[i][v]);
        }
      }
    }
    for (int i = 0; i < Q; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        if constexpr (kScaled<T>) {
          acc[i][v] =
              acc[i][v] * Isa::Load(ScalesOf(tile[v / kPerTile], head_dim) +
                                    Isa::kLanes * (v % kPerTile));
        }
        Isa::Store(scores + i * kSegmentTokens + 16 * j + Isa::kLanes * v,
                   acc[i][v]);
      }
    }
  }
}

template <class T, int Q>
inline void ScorePass(const float* queries, int n, int head_dim,
                      const void* const* keys, const Ahead<T>& ahead,
                      float* scores) {
  if constexpr (Q > 1) {
    if (n < Q) {
      return ScorePass<T, Q - 1>(queries, n, head_dim, keys, ahead, scores);
    }
  }
  ScoreTiles<T, Q>(queries, head_dim, keys, ahead, scores);
}

template <class T>
void Scores(const float* queries, int num_queries, int head_dim,
            const void* const* keys, const void* const* next_keys,
            float* scores) {
  Ahead<T>(next_keys, head_dim).FetchScales();
  for (int i = 0; i < num_queries; i += Isa::kQueries) {
    const Ahead<T> ahead(i == 0 ? next_keys : nullptr, head_dim);
    ScorePass<T, Isa::kQueries>(queries + i * head_dim, num_queries - i,
                                head_dim, keys, ahead,
                                scores + i * kSegmentTokens);
  }
}

// V vectors of the values, from `d` on, for Q queries.
template <class T, int Q, int V>
inline void ValueColumns(const float* probabilities, int head_dim, int d,
                         const void* const* values, int first, int last,
                         const Ahead<T>& ahead, float* out) {
  Isa::F acc[Q][V] = {};
  for (int p = first; p < last; ++p) {
    ahead.FetchRow(p, d, V * Isa::kLanes * sizeof(T));
    const T* row =
        static_cast<const T*>(values[p / 16]) + (p % 16) * head_dim + d;
    Isa::F value[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) value[v] = Isa::Load(row + Isa::kLanes * v);
#pragma GCC unroll 8
    for (int i = 0; i < Q; ++i) {
      const Isa::F weight = Isa::Set1(probabilities[i * kSegmentTokens + p]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        acc[i][v] = Isa::Fma(value[v], weight, acc[i][v]);
      }
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int v = 0; v < V; ++v) {
      Isa::Store(out + i * head_dim + d + Isa::kLanes * v, acc[i][v]);
    }
  }
}

template <class T, int Q>
inline void ValuePass(const float* probabilities, int n, int head_dim,
                      const void* const* values, int first, int last,
                      const Ahead<T>& ahead, float* out) {
  if constexpr (Q > 1) {
    if (n < Q) {
      return ValuePass<T, Q - 1>(probabilities, n, head_dim, values, first,
                                 last, ahead, out);
    }
  }
  constexpr int kWide = Isa::kValueVectors * Isa::kLanes;
  int d = 0;
  for (; d + kWide <= head_dim; d += kWide) {
    ValueColumns<T, Q, Isa::kValueVectors>(probabilities, head_dim, d, values,
                                           first, last, ahead, out);
  }
  for (; d < head_dim; d += Isa::kLanes) {
    ValueColumns<T, Q, 1>(probabilities, head_dim, d, values, first, last,
                          ahead, out);
  }
}

// out[i][p] = probabilities[i][p] * scale of p, in the tiles of first .. last.
inline void ScaleProbabilities(const float* probabilities, int n, int head_dim,
                               const void* const* values, int first, int last,
                               float* out) {
  for (int p = first & ~15; p < last; p += Isa::kLanes) {
    const Isa::F scale = Isa::Load(ScalesOf(values[p / 16], head_dim) + p % 16);
    for (int i = 0; i < n; ++i) {
      const int at = i * kSegmentTokens + p;
      Isa::Store(out + at, Isa::Load(probabilities + at) * scale);
    }
  }
}

template <class T>
void Values(const float* probabilities, int num_queries, int head_dim,
            const void* const* values, int first, int last,
            const void* const* next_values, float* out) {
  // Rows that are not visited here may be needed there.
  const bool visits_all = first == 0 && last == kSegmentTokens;
  const Ahead<T> all_ahead(next_values, head_dim);
  visits_all ? all_ahead.FetchScales() : all_ahead.FetchAll();
  for (int i = 0; i < num_queries; i += Isa::kQueries) {
    const Ahead<T> ahead(i == 0 && visits_all ? next_values : nullptr,
                         head_dim);
    const int n = num_queries - i;
    const float* weights = probabilities + i * kSegmentTokens;
    float scaled[kScaled<T> ? Isa::kQueries * kSegmentTokens : 1];
    if constexpr (kScaled<T>) {
      ScaleProbabilities(weights, n < Isa::kQueries ? n : Isa::kQueries,
                         head_dim, values, first, last, scaled);
      weights = scaled;
    }
    ValuePass<T, Isa::kQueries>(weights, n, head_dim, values, first, last,
                                ahead, out + i * head_dim);
  }
}
