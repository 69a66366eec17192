// What a thread block does with one section of a run: 64 keys and values from
// the cache into shared memory, the queries' scores, their soft-max. Attention
// and its sums share it, so that both see the same scores to the bit.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_ATTENTION_SECTION_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_ATTENTION_SECTION_H_

#include <cstdint>

#include "backends/cuda/kernels/kernels.h"
#include "backends/cuda/kernels/kv_numbers.h"
#include "backends/cuda/kernels/rotation.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

inline constexpr int kAttentionThreads = 128;
inline constexpr float kNothing = -INFINITY;  // the score of what is not seen

// A block's shared memory: AttentionSharedBytes of it.
struct AttentionShared {
  int key_stride;  // odd, so that 32 lanes read 32 banks
  float* keys;     // [64][key_stride]
  float* values;   // [64][key_stride]
  float* queries;  // [query][padded_dim], rotated and scaled
  float* out;      // [query][padded_dim]
  float* scores;   // [query][64]
  // [query][4]: the largest score so far and the sum of exponentials; factors
  // by which what is there and what comes are merged.
  float* states;

  __device__ AttentionShared(float* memory, int queries_of_group,
                             int padded_dim)
      : key_stride(padded_dim + 1),
        keys(memory),
        values(keys + kSectionTokens * key_stride),
        queries(values + kSectionTokens * key_stride),
        out(queries + queries_of_group * padded_dim),
        scores(out + queries_of_group * padded_dim),
        states(scores + queries_of_group * kSectionTokens) {}
};

// The rows that a block takes together, and for which KV head.
struct AttentionWork {
  const AttentionArgs& args;
  const StepHeader* step;
  const StepChunk& chunk;
  int kv_head;
  int first_row, rows;
  int heads;  // that share the KV head

  __device__ AttentionWork(const AttentionArgs& args, int chunk, int kv_head,
                           int first_row, int rows)
      : args(args),
        step(args.step),
        chunk(ArrayAt<StepChunk>(step, step->chunks)[chunk]),
        kv_head(kv_head),
        first_row(first_row),
        rows(rows),
        heads(args.num_heads / args.kv.num_kv_heads) {}

  __device__ int queries() const { return rows * heads; }
  __device__ int RowOf(int query) const { return first_row + query / heads; }
  __device__ int HeadOf(int query) const {
    return kv_head * heads + query % heads;
  }
  __device__ int64_t CachePosition(int row) const {
    return ArrayAt<StepRow>(step, step->rows)[row].cache_position;
  }
  __device__ const StepRun& RunAt(int run) const {
    return ArrayAt<StepRun>(step, step->runs)[run];
  }
  __device__ SectionRange Sections(const StepRun& run) const {
    return SectionsOf(run, CachePosition(first_row),
                      CachePosition(first_row + rows - 1));
  }
  // How much further the key of a cache position was turned than where it is
  // looked at.
  __device__ int64_t LeadOf(int64_t position) const {
    if (chunk.key_positions == 0) return 0;
    const int64_t table = int64_t{args.layer} * args.kv.num_kv_heads + kv_head;
    return ArrayAt<int64_t>(
               step, chunk.key_positions)[table * chunk.key_positions_capacity +
                                          position] -
           position;
  }
};

// A pair of numbers of a query as it looks at the run; zeros beyond the last
// query and number.
__device__ inline void RotatedPair(const AttentionWork& work,
                                   const StepRun& run, int query, int pair,
                                   float& x, float& y) {
  const AttentionArgs& args = work.args;
  x = y = 0;
  if (query >= work.queries() || pair >= args.kv.head_dim / 2) return;
  const int row = work.RowOf(query);
  const float* const from = args.query.data + int64_t{row} * args.query.stride +
                            work.HeadOf(query) * args.kv.head_dim + 2 * pair;
  x = from[0] * args.scale, y = from[1] * args.scale;
  Turn(AngleAt(QueryPosition(run, work.CachePosition(row)), args.turns[pair]),
       x, y);
}

// queries = the rows' queries as they look at this run.
__device__ inline void RotateQueries(const AttentionWork& work,
                                     const StepRun& run,
                                     const AttentionShared& shared) {
  const KvMemory& kv = work.args.kv;
  const int pairs = kv.head_dim / 2;
  for (int i = threadIdx.x; i < work.queries() * pairs;
       i += kAttentionThreads) {
    const int query = i / pairs, pair = i % pairs;
    float* const to = shared.queries + query * kv.padded_dim + 2 * pair;
    RotatedPair(work, run, query, pair, to[0], to[1]);
  }
}

// Whether this block is the last of `blocks` to come here, and sees what the
// others wrote (by LoadFresh).
__device__ inline bool IsLast(int* arrived, int blocks) {
  __shared__ bool last;
  Fence();
  SyncBlock();
  if (threadIdx.x == 0) {
    last = AtomicAdd(arrived, 1) == blocks - 1;
    if (last) *arrived = 0;
  }
  SyncBlock();
  Fence();
  return last;
}

// The tiles and the slot of a cache position of the run.
struct TokenPlace {
  KvTile keys, values;
  int slot;
};
__device__ inline TokenPlace PlaceOf(const AttentionWork& work,
                                     const StepRun& run, int64_t position) {
  const auto slot =
      static_cast<int>(run.first_slot + position - run.first_position);
  const auto* const tables = ArrayAt<int32_t>(work.step, work.step->tables);
  const int nth = slot / cache::kBlockTokens;
  const int32_t block = tables[run.blocks + nth];
  const int32_t value_block =
      run.value_blocks < 0 ? -1 : tables[run.value_blocks + nth];
  const KvMemory& kv = work.args.kv;
  const int layer = work.args.layer;
  return {kv.Tile(layer, work.kv_head, block, value_block, true),
          kv.Tile(layer, work.kv_head, block, value_block, false),
          slot % cache::kBlockTokens};
}

// keys (and values, if wanted) = those of the section, of positions begin ..
// end - 1; zero elsewhere. A key that was turned too far is turned back.
__device__ inline void LoadSection(const AttentionWork& work,
                                   const StepRun& run, int64_t section,
                                   int64_t begin, int64_t end, bool with_values,
                                   const AttentionShared& shared) {
  const KvMemory& kv = work.args.kv;
  const int eights = kv.padded_dim / 8;
  for (int i = threadIdx.x; i < kSectionTokens * eights;
       i += kAttentionThreads) {
    const int token = i / eights, d = i % eights * 8;
    const int64_t position = section * kSectionTokens + token;
    float key[8] = {}, value[8] = {};
    if (position >= begin && position < end) {
      const TokenPlace place = PlaceOf(work, run, position);
      LoadEight(place.keys, kv.padded_dim, place.slot, d, key);
      if (with_values) {
        LoadEight(place.values, kv.padded_dim, place.slot, d, value);
      }
      const int64_t lead = work.LeadOf(position);
      if (lead != 0) {
#pragma unroll
        for (int k = 0; k < 8; k += 2) {
          if (d + k >= kv.head_dim) break;
          Turn(AngleAt(-lead, work.args.turns[(d + k) / 2]), key[k],
               key[k + 1]);
        }
      }
    }
    const int at = token * shared.key_stride + d;
#pragma unroll
    for (int k = 0; k < 8; ++k) shared.keys[at + k] = key[k];
    if (!with_values) continue;
#pragma unroll
    for (int k = 0; k < 8; ++k) shared.values[at + k] = value[k];
  }
}

// scores[query][token] = query . key. A thread has one token, and every other
// four queries.
__device__ inline void Score(const AttentionWork& work,
                             const AttentionShared& shared) {
  constexpr int kTile = 4;
  const int token = threadIdx.x % kSectionTokens;
  const int dim = work.args.kv.head_dim, stride = work.args.kv.padded_dim;
  const float* const key = shared.keys + token * shared.key_stride;
  constexpr int kStep = kTile * (kAttentionThreads / kSectionTokens);
  for (int first = threadIdx.x / kSectionTokens * kTile; first < work.queries();
       first += kStep) {
    const float* queries[kTile];
#pragma unroll
    for (int k = 0; k < kTile; ++k) {
      const int query = first + k < work.queries() ? first + k : first;
      queries[k] = shared.queries + query * stride;
    }
    float sums[kTile] = {};
    for (int d = 0; d < dim; ++d) {
#pragma unroll
      for (int k = 0; k < kTile; ++k) {
        sums[k] = Fma(queries[k][d], key[d], sums[k]);
      }
    }
    for (int k = 0; k < kTile && first + k < work.queries(); ++k) {
      shared.scores[(first + k) * kSectionTokens + token] = sums[k];
    }
  }
}

// The tokens of the section that a row sees: from .. to - 1, none if they
// cross.
struct TokenRange {
  int from, to;
};
__device__ inline TokenRange SeenBy(const StepRun& run, int64_t section,
                                    int64_t cache_position) {
  const int64_t first = section * kSectionTokens;
  return {static_cast<int>(Most(0, VisibleBegin(run, cache_position) - first)),
          static_cast<int>(
              Least(kSectionTokens, VisibleEnd(run, cache_position) - first))};
}

// The same of any row of the group, and of a query's row; none beyond the last
// query.
__device__ inline TokenRange SeenByGroup(const AttentionWork& work,
                                         const StepRun& run, int64_t section) {
  const int first = work.first_row, last = first + work.rows - 1;
  return {SeenBy(run, section, work.CachePosition(first)).from,
          SeenBy(run, section, work.CachePosition(last)).to};
}
__device__ inline TokenRange SeenByQuery(const AttentionWork& work,
                                         const StepRun& run, int64_t section,
                                         int query) {
  if (query >= work.queries()) return {0, 0};
  return SeenBy(run, section, work.CachePosition(work.RowOf(query)));
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_ATTENTION_SECTION_H_
