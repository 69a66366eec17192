// attention.cu for few rows, on the tensor cores: keys and values go from the
// cache into registers, in the order in which the cores want them.
//
//   grid     a block for each group of up to 8 queries (rows times heads that
//            share the KV head) and KV head; where few sequences decode, and
//            for each four sections of 64 positions
//   threads  4 warps; each takes every fourth section (of all blocks of the
//            group), and keeps scores and weighted values in registers
//   shared   a section's addresses and scales for each warp, then the warps'
//            results: 14 KiB for heads of 64 numbers, 22 for 128
//   bytes    keys and values of the section once, 16 at a time: 16 KiB in half
//            precision; a warp has a section of keys under way
//   flops    262,144 on tensor cores for a section of heads of 64 numbers,
//            always of 8 queries in two halves; 850 instructions a warp
//   bound    by reading the cache
//
// Scores are products of 16 x 8 x 16 numbers: queries times keys. The upper 8
// of the 16 rows are the queries in half precision, the lower ones what is left
// of them, so that 22 bits are kept. Keys and values are exact: half precision
// (of an 8-bit storage its wide runs), or 8 bits, whose scales are applied to
// scores and to weights. Weights are split as queries are. Sums are floats.
//
// The order of the numbers of a head is nobody's concern in a sum, so lane
// 4 g + t has eight from 8 t on of the key g, by one load, and of values those
// from 8 g on.
#include "backends/cuda/kernels/attention_section.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"
#include "backends/cuda/kernels/tensor_numbers.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kWarps = kAttentionThreads / 32;
static_assert(kWarps == kDecodeSections);
constexpr int kTokenTiles = kSectionTokens / 8;

// A token's keys and values of the block's KV head.
struct TokenAddress {
  const uint8_t* key;
  const uint8_t* value;
};

// Results of a warp: weighted values, largest score (to base 2), sum.
template <int kDim>
using Results = float[kDecodeQueries][kDim + 2];

// A block's shared memory.
template <int kDim>
struct Shared {
  TokenAddress tokens[kWarps][kSectionTokens];
  float key_scales[kWarps][kSectionTokens];
  float value_scales[kWarps][kSectionTokens];
  Results<kDim> results[kWarps];
};

// The queries as they look at a run: lane 4 g + t has of query g the numbers
// from 8 t + 32 j on.
template <int kDim>
struct Queries {
  uint32_t registers[kDim / 16][4];  // operand A of the jth half of 32 numbers
  float factor = 0;                  // of scores, to base 2

  __device__ void Load(const AttentionWork& work, const StepRun& run) {
    const int lane = threadIdx.x % 32;
    float numbers[kDim / 8][2];
    float largest[1] = {0};
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      auto& [x, y] = numbers[i];
      RotatedPair(work, run, lane / 4, i / 4 * 16 + lane % 4 * 4 + i % 4, x, y);
      largest[0] = fmaxf(largest[0], fmaxf(fabsf(x), fabsf(y)));
    }
    LargestOfFours(largest);
    const int exponent = ExponentOf(largest[0]);
    const float down = PowerOfTwo(-exponent);
    factor = PowerOfTwo(exponent) * kLog2E;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      const SplitPair pair(numbers[i][0] * down, numbers[i][1] * down);
      registers[i / 2][i % 2 * 2] = pair.high;
      registers[i / 2][i % 2 * 2 + 1] = pair.low;
    }
  }
};

// What a warp has added up: lane 4 g + t has of query g the numbers 2 t and
// 2 t + 1 of every eight.
template <int kDim>
struct State {
  float out[kDim / 8][4] = {};  // a split weight's two parts: 0 and 2, 1 and 3
  float largest = kNothing;
  float sums[1] = {0};  // of the lane's own tokens
  int exponent = -100;  // `out` is to be multiplied by 2^exponent
};

using Scores = float[kTokenTiles][2];

// ---- A section ----

// Where the warp's tokens are. Those beyond `seen` are replaced by one that is
// seen: what nobody wrote may be no number.
template <KvDtype kDtype, int kDim>
__device__ void FindTokens(const AttentionWork& work, const StepRun& run,
                           int64_t section, TokenRange seen,
                           Shared<kDim>& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  SyncWarp();
#pragma unroll
  for (int token = lane; token < kSectionTokens; token += 32) {
    const int other = token < seen.from  ? seen.from
                      : token >= seen.to ? seen.to - 1
                                         : token;
    const TokenPlace at = PlaceOf(work, run, section * kSectionTokens + other);
    constexpr int kRow = kDim * KvBytesPerNumber(kDtype);
    shared.tokens[warp][token] = {at.keys.data + at.slot * kRow,
                                  at.values.data + at.slot * kRow};
    if constexpr (kDtype == KvDtype::kInt8) {
      shared.key_scales[warp][token] = ScalesOf(at.keys, kDim)[at.slot];
      shared.value_scales[warp][token] = ScalesOf(at.values, kDim)[at.slot];
    }
  }
  SyncWarp();
}

// Eight numbers of a key, as four pairs of halves.
template <KvDtype kDtype>
__device__ void LoadPairs(const uint8_t* from, int d, uint32_t (&pairs)[4]) {
  if constexpr (kDtype == KvDtype::kF16) {
    const uint4 four = *reinterpret_cast<const uint4*>(from + 2 * d);
    pairs[0] = four.x, pairs[1] = four.y, pairs[2] = four.z, pairs[3] = four.w;
  } else {
    const uint2 two = *reinterpret_cast<const uint2*>(from + d);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t bytes = (i < 2 ? two.x : two.y) ^ 0x80808080u;
      pairs[i] =
          PairOfBytes(ChooseBytes(bytes, 0, i % 2 == 0 ? 0x4140 : 0x4342));
    }
  }
}

template <KvDtype kDtype, int kDim>
__device__ void ScoreTokens(const Queries<kDim>& queries,
                            const Shared<kDim>& shared, Scores& scores) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int tile = 0; tile < kTokenTiles; ++tile) {
    const uint8_t* const key = shared.tokens[warp][8 * tile + lane / 4].key;
    float sums[4] = {};
#pragma unroll
    for (int j = 0; j < kDim / 32; ++j) {
      uint32_t keys[4];
      LoadPairs<kDtype>(key, 32 * j + lane % 4 * 8, keys);
      MultiplyAdd(sums, queries.registers[2 * j], {keys[0], keys[1]});
      MultiplyAdd(sums, queries.registers[2 * j + 1], {keys[2], keys[3]});
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scores[tile][i] = (sums[i] + sums[i + 2]) * queries.factor;
      if constexpr (kDtype == KvDtype::kInt8) {
        scores[tile][i] *= shared.key_scales[warp][8 * tile + lane % 4 * 2 + i];
      }
    }
  }
}

// By which power of two values of the section are divided.
template <KvDtype kDtype, int kDim>
__device__ int ValueExponent(const Shared<kDim>& shared) {
  if constexpr (kDtype == KvDtype::kF16) return ExponentOf(1);
  const int lane = threadIdx.x % 32;
  const float* const scales = shared.value_scales[threadIdx.x / 32];
  return ExponentOf(LargestOfWarp(fmaxf(scales[lane], scales[lane + 32])));
}

// scores = weights of values: exponentials of what the lane's query sees, 0
// elsewhere. What was added up before is rescaled.
template <KvDtype kDtype, int kDim>
__device__ void SoftMax(const Shared<kDim>& shared, TokenRange seen,
                        Scores& scores, State<kDim>& state) {
  const int lane = threadIdx.x % 32;
  float largest[1] = {state.largest};
#pragma unroll
  for (int i = 0; i < 2 * kTokenTiles; ++i) {
    const int token = i / 2 * 8 + lane % 4 * 2 + i % 2;
    float& score = scores[i / 2][i % 2];
    if (token < seen.from || token >= seen.to) score = kNothing;
    largest[0] = fmaxf(largest[0], score);
  }
  LargestOfFours(largest);
  const float base = largest[0] == kNothing ? 0 : largest[0];
  const float before = exp2f(state.largest - base);
  state.largest = largest[0];
  state.sums[0] *= before;
  const int exponent =
      static_cast<int>(Most(state.exponent, ValueExponent<kDtype>(shared)));
  // Below 2^-126 next to nothing of what came before is left.
  const int change = state.exponent - exponent;
  const float rescale = change < -126 ? 0 : before * PowerOfTwo(change);
  state.exponent = exponent;
#pragma unroll
  for (int i = 0; i < kDim / 2; ++i) state.out[i / 4][i % 4] *= rescale;
  const float down = PowerOfTwo(-exponent);
#pragma unroll
  for (int i = 0; i < 2 * kTokenTiles; ++i) {
    float& score = scores[i / 2][i % 2];
    score = exp2f(score - base);
    state.sums[0] += score;
    score *= down;
    if constexpr (kDtype == KvDtype::kInt8) {
      const int token = i / 2 * 8 + lane % 4 * 2 + i % 2;
      score *= shared.value_scales[threadIdx.x / 32][token];
    }
  }
}

// For operands B: pairs[i] is number d + i of both tokens.
template <KvDtype kDtype>
struct ValuePairs {
  uint32_t pairs[8];

  __device__ ValuePairs(const uint8_t* first, const uint8_t* second, int d) {
    if constexpr (kDtype == KvDtype::kF16) {
      uint32_t a[4], b[4];
      LoadPairs<kDtype>(first, d, a);
      LoadPairs<kDtype>(second, d, b);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        pairs[i] =
            ChooseBytes(a[i / 2], b[i / 2], i % 2 == 0 ? 0x5410 : 0x7632);
      }
    } else {
      const uint2 a = *reinterpret_cast<const uint2*>(first + d);
      const uint2 b = *reinterpret_cast<const uint2*>(second + d);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t bytes = ChooseBytes(i < 2 ? a.x : a.y, i < 2 ? b.x : b.y,
                                           i % 2 == 0 ? 0x5410 : 0x7632) ^
                               0x80808080u;
        pairs[2 * i] = PairOfBytes(bytes & 0x00ff00ff);
        pairs[2 * i + 1] = PairOfBytes(bytes >> 8 & 0x00ff00ff);
      }
    }
  }
};

template <KvDtype kDtype, int kDim>
__device__ void WeighValues(const Shared<kDim>& shared, const Scores& weights,
                            State<kDim>& state) {
  const int lane = threadIdx.x % 32;
  const TokenAddress* const tokens = shared.tokens[threadIdx.x / 32];
#pragma unroll
  for (int tile = 0; tile < kTokenTiles; tile += 2) {
    const SplitPair a(weights[tile][0], weights[tile][1]);
    const SplitPair b(weights[tile + 1][0], weights[tile + 1][1]);
    const uint32_t operand[4] = {a.high, a.low, b.high, b.low};
    const TokenAddress* const own = tokens + 8 * tile + lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < kDim / 64; ++h) {
      const int d = 64 * h + lane / 4 * 8;
      const ValuePairs<kDtype> low(own[0].value, own[1].value, d);
      const ValuePairs<kDtype> high(own[8].value, own[9].value, d);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        MultiplyAdd(state.out[8 * h + i], operand,
                    {low.pairs[i], high.pairs[i]});
      }
    }
  }
}

// Of numbers of a dtype.
template <KvDtype kDtype, int kDim>
__device__ void TakeSection(const AttentionWork& work, const StepRun& run,
                            int64_t section, const Queries<kDim>& queries,
                            Shared<kDim>& shared, State<kDim>& state) {
  FindTokens<kDtype>(work, run, section, SeenByGroup(work, run, section),
                     shared);
  Scores scores;
  ScoreTokens<kDtype>(queries, shared, scores);
  const int query = threadIdx.x % 32 / 4;
  SoftMax<kDtype>(shared, SeenByQuery(work, run, section, query), scores,
                  state);
  WeighValues<kDtype>(shared, scores, state);
}

// ---- All of them ----

// Every `stride`th section of all runs, from `first` on.
template <KvDtype kDtype, int kDim>
__device__ void TakeSections(const AttentionWork& work, int first, int stride,
                             Shared<kDim>& shared, State<kDim>& state) {
  int64_t next = first;  // among those of the run
  for (int r = work.chunk.runs_begin; r < work.chunk.runs_end; ++r) {
    const StepRun& run = work.RunAt(r);
    const SectionRange sections = work.Sections(run);
    const int64_t count = sections.end - sections.begin;
    if (next < count) {
      Queries<kDim> queries;
      queries.Load(work, run);
      for (; next < count; next += stride) {
        const int64_t section = sections.begin + next;
        if (kDtype == KvDtype::kInt8 && run.value_blocks >= 0) {  // wide
          TakeSection<KvDtype::kF16>(work, run, section, queries, shared,
                                     state);
        } else {
          TakeSection<kDtype>(work, run, section, queries, shared, state);
        }
      }
    }
    next -= count;
  }
}

template <int kDim>
__device__ void KeepResults(State<kDim>& state, Results<kDim>& results) {
  const int lane = threadIdx.x % 32;
  AddUpFours(state.sums);
  float* const to = results[lane / 4];
  const float up = PowerOfTwo(state.exponent);
#pragma unroll
  for (int i = 0; i < kDim / 4; ++i) {
    const int tile = i / 2, d = tile / 8 * 64 + (lane % 4 * 2 + i % 2) * 8;
    to[d + tile % 8] =
        (state.out[tile][i % 2] + state.out[tile][i % 2 + 2]) * up;
  }
  if (lane % 4 == 0) to[kDim] = state.largest, to[kDim + 1] = state.sums[0];
}

// What `count` results of a query come to, of number d; load(n, i) is number i
// of the nth. A sum that is no number stays so.
struct Total {
  float out, largest, sum;
};
template <int kDim, class Load>
__device__ Total AddUp(int count, int d, const Load& load) {
  Total total = {0, kNothing, 0};
#pragma unroll 4
  for (int n = 0; n < count; ++n) {
    const float largest = load(n, kDim), sum = load(n, kDim + 1);
    const float out = load(n, d);
    const float both = fmaxf(total.largest, largest);
    const float base = both == kNothing ? 0 : both;
    const float before = exp2f(total.largest - base);
    const float now = exp2f(largest - base);
    total.out = Fma(total.out, before, out * now);
    total.sum = Fma(total.sum, before, sum * now);
    total.largest = both;
  }
  return total;
}

template <int kDim>
__device__ void Finish(const AttentionWork& work, int query, int d,
                       const Total& total) {
  const AttentionArgs& args = work.args;
  args.attended.data[int64_t{work.RowOf(query)} * args.attended.stride +
                     work.HeadOf(query) * kDim + d] = total.out / total.sum;
}

// Calls use(query, d, total of the block's warps).
template <int kDim, class Use>
__device__ void ForEachTotal(const AttentionWork& work,
                             const Shared<kDim>& shared, const Use& use) {
  for (int i = threadIdx.x; i < work.queries() * kDim; i += kAttentionThreads) {
    const int query = i / kDim, d = i % kDim;
    use(query, d, AddUp<kDim>(kWarps, d, [&](int warp, int at) {
          return shared.results[warp][query][at];
        }));
  }
}

// Hands the block's total over, and finishes if the others have.
template <int kDim>
__device__ void MergeBlocks(const AttentionWork& work, int group,
                            const Shared<kDim>& shared) {
  const AttentionArgs& args = work.args;
  const int place = group * args.kv.num_kv_heads + work.kv_head;
  const int blocks = gridDim.x;
  constexpr int kRecord = kDecodeQueries * (kDim + 2);
  float* const records = args.partials + int64_t{place} * blocks * kRecord;
  float* const own = records + int64_t{blockIdx.x} * kRecord;
  ForEachTotal<kDim>(work, shared, [&](int query, int d, const Total& total) {
    float* const to = own + query * (kDim + 2);
    to[d] = total.out;
    if (d == 0) to[kDim] = total.largest, to[kDim + 1] = total.sum;
  });
  if (!IsLast(args.arrived + place, blocks)) return;
  for (int i = threadIdx.x; i < work.queries() * kDim; i += kAttentionThreads) {
    const int query = i / kDim, d = i % kDim;
    Finish<kDim>(work, query, d, AddUp<kDim>(blocks, d, [&](int n, int at) {
                   return LoadFresh(records + int64_t{n} * kRecord +
                                    query * (kDim + 2) + at);
                 }));
  }
}

template <KvDtype kDtype, int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    DecodeAttention(AttentionArgs args) {
  WaitForPredecessor();
  const int group = blockIdx.y, kv_head = blockIdx.z;
  if (group >= args.step->num_decode_groups) return;
  const StepGroup& at =
      ArrayAt<StepGroup>(args.step, args.step->decode_groups)[group];
  const AttentionWork work(args, at.chunk, kv_head, at.first_row, at.rows);
  __shared__ Shared<kDim> shared;
  State<kDim> state;
  const int warp = threadIdx.x / 32;
  TakeSections<kDtype>(work, blockIdx.x * kWarps + warp, gridDim.x * kWarps,
                       shared, state);
  KeepResults(state, shared.results[warp]);
  SyncBlock();
  if (gridDim.x > 1) return MergeBlocks<kDim>(work, group, shared);
  ForEachTotal<kDim>(work, shared, [&](int query, int d, const Total& total) {
    Finish<kDim>(work, query, d, total);
  });
}

template <KvDtype kDtype, int kDim>
void LaunchShape(Stream* stream, const AttentionArgs& args) {
  const dim3 grid(args.decode_blocks, args.max_decode_groups,
                  args.kv.num_kv_heads);
  Launch(stream, grid, dim3(kAttentionThreads), 0,
         DecodeAttention<kDtype, kDim>, args);
}

template <KvDtype kDtype>
void LaunchDtype(Stream* stream, const AttentionArgs& args) {
  if (args.kv.head_dim == 64) return LaunchShape<kDtype, 64>(stream, args);
  LaunchShape<kDtype, 128>(stream, args);
}

}  // namespace

void LaunchDecodeAttention(Stream* stream, const AttentionArgs& args) {
  if (args.kv.dtype == KvDtype::kF16) {
    return LaunchDtype<KvDtype::kF16>(stream, args);
  }
  LaunchDtype<KvDtype::kInt8>(stream, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
