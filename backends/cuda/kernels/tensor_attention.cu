// attention.cu on the tensor cores, for chunks of many rows: scores and
// weighted values are products of 16 x 8 x 16 numbers in half precision.
//
//   grid     x: KV heads; y: groups of rows, those that see most first
//   threads  4 warps, each with 16 of the block's 64 queries (rows times heads
//            that share the KV head)
//   shared   queries, keys and values of a section of 64 positions in half
//            precision: 27 KiB for heads of up to 64 numbers, 51 for 128
//   bytes    keys and values of a section once for 64 queries; those that are
//            not in half precision are read twice, first for the largest
//   flops    4 a query, position and number of the head
//   bound    the tensor cores
//
// As FlashAttention-2 (Dao 2023): scores and weighted values stay in
// registers, sums are rescaled when a larger score comes.
//
// Rounding: queries, exponentials, and keys and values that are not in half
// precision keep 11 bits; sums and statistics are floats. A query is scaled by
// a power of two, and so are the keys and values of a section; exponentials
// are scaled by 2^15, so that a million small ones are not lost.
#include "backends/cuda/kernels/attention_section.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"
#include "backends/cuda/kernels/tensor_numbers.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kWarps = kAttentionThreads / 32;
constexpr int kWarpQueries = kTensorQueries / kWarps;
static_assert(kWarpQueries == 16);
constexpr int kTokenTiles = kSectionTokens / 8;
constexpr float kLargestExponential = 15;  // its logarithm to base 2

// A block's shared memory. Rows are 16 bytes longer than kDim numbers, so that
// eight of them lie in different banks.
template <int kDim>
struct Shared {
  static constexpr int kStride = kDim + 8;
  uint16_t* queries;  // [kTensorQueries][kStride]
  uint16_t* keys;     // [64][kStride]
  uint16_t* values;   // [64][kStride]
  float* factors;     // [kTensorQueries], of queries
  float* largest;     // [2][kWarps], of keys and values

  __device__ explicit Shared(uint16_t* memory)
      : queries(memory),
        keys(queries + kTensorQueries * kStride),
        values(keys + kSectionTokens * kStride),
        factors(reinterpret_cast<float*>(values + kSectionTokens * kStride)),
        largest(factors + kTensorQueries) {}

  static constexpr int64_t kBytes =
      2 * (kTensorQueries + 2 * kSectionTokens) * kStride +
      4 * (kTensorQueries + 2 * kWarps);
};

// The warp's own queries, rotated, into shared memory.
template <int kDim>
__device__ inline void StoreQueries(const AttentionWork& work,
                                    const StepRun& run,
                                    const Shared<kDim>& shared) {
  constexpr int kPairs = kDim / 64;  // of a lane
  const int lane = threadIdx.x % 32;
  const int first = threadIdx.x / 32 * kWarpQueries;
  for (int query = first; query < first + kWarpQueries; ++query) {
    float x[kPairs], y[kPairs], largest = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      RotatedPair(work, run, query, lane + 32 * i, x[i], y[i]);
      largest = fmaxf(largest, fmaxf(fabsf(x[i]), fabsf(y[i])));
    }
    const int exponent = ExponentOf(LargestOfWarp(largest));
    const float factor = PowerOfTwo(-exponent);
    auto* const to = reinterpret_cast<uint32_t*>(shared.queries +
                                                 query * Shared<kDim>::kStride);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      to[lane + 32 * i] = PairOf(x[i] * factor, y[i] * factor);
    }
    if (lane == 0) shared.factors[query] = PowerOfTwo(exponent) * kLog2E;
  }
  SyncWarp();
}

// Calls use(token, d, place) for eight numbers from d on of each token of the
// section; place is null where none is seen.
template <int kDim, class Use>
__device__ inline void ForEachEight(const AttentionWork& work,
                                    const StepRun& run, int64_t section,
                                    TokenRange seen, const Use& use) {
  constexpr int kEights = kDim / 8;
  for (int i = threadIdx.x; i < kSectionTokens * kEights;
       i += kAttentionThreads) {
    const int token = i / kEights, d = i % kEights * 8;
    if (token < seen.from || token >= seen.to || d >= work.args.kv.padded_dim) {
      use(token, d, nullptr);
      continue;
    }
    const TokenPlace place =
        PlaceOf(work, run, section * kSectionTokens + token);
    use(token, d, &place);
  }
}

// What is beyond head_dim in memory may be anything.
__device__ inline void LoadClean(const KvMemory& kv, KvTile tile, int slot,
                                 int d, float (&out)[8]) {
  LoadEight(tile, kv.padded_dim, slot, d, out);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    if (d + k >= kv.head_dim) out[k] = 0;
  }
}

// By which powers of two the keys of a section, and its values, are divided.
struct Exponents {
  int keys, values;
};
template <int kDim>
__device__ inline Exponents FindExponents(const AttentionWork& work,
                                          const StepRun& run, int64_t section,
                                          TokenRange seen,
                                          const Shared<kDim>& shared) {
  const KvMemory& kv = work.args.kv;
  if (run.value_blocks >= 0 || kv.dtype == KvDtype::kF16) return {0, 0};
  float key = 0, value = 0;
  ForEachEight<kDim>(work, run, section, seen,
                     [&](int, int d, const TokenPlace* place) {
                       if (place == nullptr) return;
                       float keys[8], values[8];
                       LoadClean(kv, place->keys, place->slot, d, keys);
                       LoadClean(kv, place->values, place->slot, d, values);
#pragma unroll
                       for (int k = 0; k < 8; ++k) {
                         key = fmaxf(key, fabsf(keys[k]));
                         value = fmaxf(value, fabsf(values[k]));
                       }
                     });
  key = LargestOfWarp(key), value = LargestOfWarp(value);
  if (threadIdx.x % 32 == 0) {
    shared.largest[threadIdx.x / 32] = key;
    shared.largest[kWarps + threadIdx.x / 32] = value;
  }
  SyncBlock();
  for (int w = 0; w < kWarps; ++w) {
    key = fmaxf(key, shared.largest[w]);
    value = fmaxf(value, shared.largest[kWarps + w]);
  }
  return {ExponentOf(key), ExponentOf(value)};
}

__device__ inline void StoreEight(const float (&from)[8], float factor,
                                  uint16_t* to) {
  auto* const pairs = reinterpret_cast<uint32_t*>(to);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    pairs[k] = PairOf(from[2 * k] * factor, from[2 * k + 1] * factor);
  }
}

// Keys and values of the section, zero where none are seen.
template <int kDim>
__device__ inline void LoadHalves(const AttentionWork& work, const StepRun& run,
                                  int64_t section, TokenRange seen,
                                  Exponents exponents,
                                  const Shared<kDim>& shared) {
  const KvMemory& kv = work.args.kv;
  const float key_factor = PowerOfTwo(-exponents.keys);
  const float value_factor = PowerOfTwo(-exponents.values);
  ForEachEight<kDim>(work, run, section, seen,
                     [&](int token, int d, const TokenPlace* place) {
                       float key[8] = {}, value[8] = {};
                       if (place != nullptr) {
                         LoadClean(kv, place->keys, place->slot, d, key);
                         LoadClean(kv, place->values, place->slot, d, value);
                       }
                       const int at = token * Shared<kDim>::kStride + d;
                       StoreEight(key, key_factor, shared.keys + at);
                       StoreEight(value, value_factor, shared.values + at);
                     });
}

// A warp's 16 queries: lane 4 j + t has queries j and j + 8, of which numbers
// 2 t and 2 t + 1 of every eight.
template <int kDim>
struct WarpState {
  float out[kDim / 8][4] = {};
  float largest[2] = {kNothing, kNothing};
  float sums[2] = {};   // of the lane's own tokens
  int exponent = -100;  // `out` is to be multiplied by 2^exponent
};

using Scores = float[kTokenTiles][4];

template <int kDim>
__device__ inline void ScoreTokens(const Shared<kDim>& shared, Scores& scores) {
  constexpr int kStride = Shared<kDim>::kStride;
  const int lane = threadIdx.x % 32;
  const int query = threadIdx.x / 32 * kWarpQueries + lane % 16;
#pragma unroll
  for (int d = 0; d < kDim; d += 16) {
    uint32_t queries[4];
    LoadMatrices(shared.queries + query * kStride + d + lane / 16 * 8, queries);
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; tile += 2) {
      const int token = (tile + lane / 16) * 8 + lane % 8;
      uint32_t keys[4];
      LoadMatrices(shared.keys + token * kStride + d + lane / 8 % 2 * 8, keys);
      MultiplyAdd(scores[tile], queries, {keys[0], keys[1]});
      MultiplyAdd(scores[tile + 1], queries, {keys[2], keys[3]});
    }
  }
}

// scores = exponentials of what each query sees, 0 elsewhere. What was added
// up before is rescaled.
template <int kDim>
__device__ inline void SoftMax(const float (&factors)[2],
                               const TokenRange (&seen)[2], float rescale,
                               Scores& scores, WarpState<kDim>& state) {
  const int lane = threadIdx.x % 32;
  float largest[2] = {state.largest[0], state.largest[1]};
#pragma unroll
  for (int i = 0; i < kTokenTiles * 4; ++i) {
    const int half = i / 2 % 2, token = i / 4 * 8 + lane % 4 * 2 + i % 2;
    float& score = scores[i / 4][i % 4];
    const bool sees = token >= seen[half].from && token < seen[half].to;
    score = sees ? score * factors[half] : kNothing;
    largest[half] = fmaxf(largest[half], score);
  }
  LargestOfFours(largest);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float base = largest[half] == kNothing ? 0 : largest[half];
    const float before = exp2f(state.largest[half] - base);
    state.largest[half] = largest[half];
    state.sums[half] *= before;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      state.out[n][2 * half] *= before * rescale;
      state.out[n][2 * half + 1] *= before * rescale;
    }
#pragma unroll
    for (int i = 0; i < kTokenTiles * 2; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      score = exp2f(score - base + kLargestExponential);
      state.sums[half] += score;
    }
  }
}

template <int kDim>
__device__ inline void WeighValues(const Shared<kDim>& shared,
                                   const Scores& scores,
                                   WarpState<kDim>& state) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int tile = 0; tile < kTokenTiles; tile += 2) {
    const float(&a)[4] = scores[tile];
    const float(&b)[4] = scores[tile + 1];
    const uint32_t weights[4] = {PairOf(a[0], a[1]), PairOf(a[2], a[3]),
                                 PairOf(b[0], b[1]), PairOf(b[2], b[3])};
    const int token = tile * 8 + lane % 16;
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t values[4];
      LoadTransposed(
          shared.values + token * Shared<kDim>::kStride + (n + lane / 16) * 8,
          values);
      MultiplyAdd(state.out[n], weights, {values[0], values[1]});
      MultiplyAdd(state.out[n + 1], weights, {values[2], values[3]});
    }
  }
}

template <int kDim>
__device__ inline void TakeSection(const AttentionWork& work,
                                   const StepRun& run, int64_t section,
                                   const Shared<kDim>& shared,
                                   WarpState<kDim>& state) {
  const TokenRange seen = SeenByGroup(work, run, section);
  Exponents exponents = FindExponents(work, run, section, seen, shared);
  const int before = state.exponent;
  if (exponents.values < before) exponents.values = before;
  state.exponent = exponents.values;
  // Below 2^-126 next to nothing of what came before is left.
  const int change = before - state.exponent;
  const float rescale = change < -126 ? 0 : PowerOfTwo(change);
  LoadHalves(work, run, section, seen, exponents, shared);
  SyncBlock();
  float factors[2];
  TokenRange seen_by[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query =
        threadIdx.x / 32 * kWarpQueries + threadIdx.x % 32 / 4 + 8 * half;
    factors[half] = shared.factors[query] * PowerOfTwo(exponents.keys);
    seen_by[half] = SeenByQuery(work, run, section, query);
  }
  Scores scores = {};
  ScoreTokens(shared, scores);
  SoftMax(factors, seen_by, rescale, scores, state);
  WeighValues(shared, scores, state);
  SyncBlock();
}

template <int kDim>
__device__ inline void Finish(const AttentionWork& work,
                              WarpState<kDim>& state) {
  const AttentionArgs& args = work.args;
  const int lane = threadIdx.x % 32;
  AddUpFours(state.sums);
#pragma unroll
  for (int i = 0; i < kDim / 8 * 4; ++i) {
    const int half = i / 2 % 2, d = i / 4 * 8 + lane % 4 * 2 + i % 2;
    const int query = threadIdx.x / 32 * kWarpQueries + lane / 4 + 8 * half;
    if (query >= work.queries() || d >= args.kv.head_dim) continue;
    args.attended.data[int64_t{work.RowOf(query)} * args.attended.stride +
                       work.HeadOf(query) * args.kv.head_dim + d] =
        state.out[i / 4][i % 4] / state.sums[half] * PowerOfTwo(state.exponent);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    TensorAttention(AttentionArgs args) {
  WaitForPredecessor();
  const int groups = args.step->num_tensor_groups;
  if (static_cast<int>(blockIdx.y) >= groups) return;
  const StepGroup& at = ArrayAt<StepGroup>(
      args.step, args.step->tensor_groups)[groups - 1 - blockIdx.y];
  const AttentionWork work(args, at.chunk, blockIdx.x, at.first_row, at.rows);
  const Shared<kDim> shared(DynamicShared<uint16_t>());
  WarpState<kDim> state;
  for (int r = work.chunk.runs_begin; r < work.chunk.runs_end; ++r) {
    const StepRun& run = work.RunAt(r);
    const SectionRange sections = work.Sections(run);
    if (sections.begin == sections.end) continue;
    StoreQueries(work, run, shared);
    for (int64_t s = sections.begin; s < sections.end; ++s) {
      TakeSection(work, run, s, shared, state);
    }
  }
  Finish(work, state);
}

template <int kDim>
void LaunchDim(Stream* stream, const AttentionArgs& args) {
  Launch(stream, dim3(args.kv.num_kv_heads, args.max_tensor_groups),
         dim3(kAttentionThreads), Shared<kDim>::kBytes, TensorAttention<kDim>,
         args);
}

static_assert(Shared<kTensorHeadDim>::kBytes <= kTensorAttentionBytes);

}  // namespace

void LaunchTensorAttention(Stream* stream, const AttentionArgs& args) {
  if (args.kv.padded_dim <= 64) return LaunchDim<64>(stream, args);
  LaunchDim<kTensorHeadDim>(stream, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
