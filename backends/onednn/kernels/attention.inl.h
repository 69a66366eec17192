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
// Decode is bound by memory: 320 operations on two ports for 4,096 bytes of
// fp16, ~160 cycles. Scores fetch the segment's values ahead, values the next
// segment's keys, because every tile lies in another page.
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

// Fetches the tiles that come next, while the present ones are computed with.
template <class T>
inline void FetchAhead(const void* const* tiles, int head_dim) {
  for (int at = 0; at < TileBytes<T>(head_dim); at += 64) {
    for (int j = 0; j < kSegmentTiles; ++j) {
      __builtin_prefetch(static_cast<const char*>(tiles[j]) + at);
    }
  }
}

// Scores of Q queries against kTiles tiles from `j` on.
template <class T, int Q>
inline void ScoreTiles(const float* queries, int head_dim,
                       const void* const* keys, float* scores) {
  constexpr int kPerTile = 16 / Isa::kLanes;
  constexpr int kVectors = Isa::kScoreTiles * kPerTile;
  for (int j = 0; j < kSegmentTiles; j += Isa::kScoreTiles) {
    const T* tile[Isa::kScoreTiles];
    for (int k = 0; k < Isa::kScoreTiles; ++k) {
      tile[k] = static_cast<const T*>(keys[j + k]);
    }
    Isa::F acc[Q][kVectors] = {};
    for (int d = 0; d < head_dim; ++d) {
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
                      const void* const* keys, float* scores) {
  if constexpr (Q > 1) {
    if (n < Q) return ScorePass<T, Q - 1>(queries, n, head_dim, keys, scores);
  }
  ScoreTiles<T, Q>(queries, head_dim, keys, scores);
}

template <class T>
void Scores(const float* queries, int num_queries, int head_dim,
            const void* const* keys, const void* const* values, float* scores) {
  if (values != nullptr) FetchAhead<T>(values, head_dim);
  for (int i = 0; i < num_queries; i += Isa::kQueries) {
    ScorePass<T, Isa::kQueries>(queries + i * head_dim, num_queries - i,
                                head_dim, keys, scores + i * kSegmentTokens);
  }
}

// V vectors of the values, from `d` on, for Q queries.
template <class T, int Q, int V>
inline void ValueColumns(const float* probabilities, int head_dim, int d,
                         const void* const* values, int first, int last,
                         float* out) {
  Isa::F acc[Q][V] = {};
  for (int p = first; p < last; ++p) {
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
                      float* out) {
  if constexpr (Q > 1) {
    if (n < Q) {
      return ValuePass<T, Q - 1>(probabilities, n, head_dim, values, first,
                                 last, out);
    }
  }
  constexpr int kWide = Isa::kValueVectors * Isa::kLanes;
  int d = 0;
  for (; d + kWide <= head_dim; d += kWide) {
    ValueColumns<T, Q, Isa::kValueVectors>(probabilities, head_dim, d, values,
                                           first, last, out);
  }
  for (; d < head_dim; d += Isa::kLanes) {
    ValueColumns<T, Q, 1>(probabilities, head_dim, d, values, first, last, out);
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
            const void* const* next_keys, float* out) {
  if (next_keys != nullptr) FetchAhead<T>(next_keys, head_dim);
  for (int i = 0; i < num_queries; i += Isa::kQueries) {
    const int n = num_queries - i;
    const float* weights = probabilities + i * kSegmentTokens;
    float scaled[kScaled<T> ? Isa::kQueries * kSegmentTokens : 1];
    if constexpr (kScaled<T>) {
      ScaleProbabilities(weights, n < Isa::kQueries ? n : Isa::kQueries,
                         head_dim, values, first, last, scaled);
      weights = scaled;
    }
    ValuePass<T, Isa::kQueries>(weights, n, head_dim, values, first, last,
                                out + i * head_dim);
  }
}
