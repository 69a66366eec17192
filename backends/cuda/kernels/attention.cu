// attended = soft-max of the queries' scores over all visible keys of all runs,
// times values. For all that decode_attention.cu and tensor_attention.cu are
// not for: any storage, head, moved keys, statistics for sums of attention.
//
//   grid     a block for each group of rows of a chunk (up to 8) and KV head;
//            where few sequences decode, and for each section of 64 positions
//   threads  128: a token and four queries each for scores, a warp for the
//            soft-max of a query, a number of the head for values
//   shared   keys and values of a section as floats, queries, results: 35 KB
//            for 3 queries of 64 numbers, 52 KB for 24
//   bytes    keys and values of the section once for all queries that share the
//            KV head: 16 KB in half precision
//   flops    4 a query, position and number of the head
//   bound    by instructions: some 6,500 of a warp for a section and 3 queries
//
// Sections are merged in ascending order: by the one block that takes them all,
// or by the last of the blocks to finish, with the same operations in the same
// order. So a row's result is the same bits in either form and any company.
#include "backends/cuda/kernels/attention_section.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

// How a part is merged with what is there: out = before * out + now * part.
struct Merging {
  float largest, sum;
  float before, now;
};

__device__ Merging Merge(float largest, float sum, float part_largest,
                         float part_sum) {
  if (part_largest == kNothing) return {largest, sum, 1, 0};
  if (largest == kNothing) return {part_largest, part_sum, 0, 1};
  const float both = fmaxf(largest, part_largest);
  const float before = expf(largest - both), now = expf(part_largest - both);
  return {both, Fma(sum, before, part_sum * now), before, now};
}

// scores = exp(score - largest) of what the query's row sees, 0 elsewhere. A
// warp for each query.
struct Part {
  float largest, sum;
};
__device__ Part SoftMax(float* scores, TokenRange seen) {
  const int lane = threadIdx.x % 32;
  float largest = kNothing;
  for (int i = lane; i < kSectionTokens; i += 32) {
    if (i >= seen.from && i < seen.to) largest = fmaxf(largest, scores[i]);
  }
  largest = LargestOfWarp(largest);
  float sum = 0;
  for (int i = lane; i < kSectionTokens; i += 32) {
    const bool sees = i >= seen.from && i < seen.to;
    scores[i] = sees ? expf(scores[i] - largest) : 0;
    sum += scores[i];
  }
  return {largest, SumOfWarp(sum)};
}

// Calls use(query, d, part) with each number of values weighted by scores. A
// thread has a number of the head, and four queries at a time.
template <class Use>
__device__ void WeighValues(const AttentionWork& work,
                            const AttentionShared& shared, const Use& use) {
  constexpr int kTile = 4;
  const int dim = work.args.kv.head_dim;
  const int tiles = (work.queries() + kTile - 1) / kTile;
  for (int i = threadIdx.x; i < tiles * dim; i += kAttentionThreads) {
    const int first = i / dim * kTile, d = i % dim;
    const float* weights[kTile];
#pragma unroll
    for (int k = 0; k < kTile; ++k) {
      const int query = first + k < work.queries() ? first + k : first;
      weights[k] = shared.scores + query * kSectionTokens;
    }
    float sums[kTile] = {};
#pragma unroll 4
    for (int token = 0; token < kSectionTokens; ++token) {
      const float value = shared.values[token * shared.key_stride + d];
#pragma unroll
      for (int k = 0; k < kTile; ++k) {
        sums[k] = Fma(weights[k][token], value, sums[k]);
      }
    }
    for (int k = 0; k < kTile && first + k < work.queries(); ++k) {
      use(first + k, d, sums[k]);
    }
  }
}

// Where a block of the divided form leaves its part: [query][head_dim + 2].
__device__ float* PartialsOf(const AttentionWork& work, int group,
                             int section) {
  const AttentionArgs& args = work.args;
  const int64_t record =
      (int64_t{group} * args.kv.num_kv_heads + work.kv_head) *
          args.max_sections +
      section;
  const int queries = args.max_group_rows * work.heads;
  return args.partials + record * queries * (args.kv.head_dim + 2);
}

// Scores and soft-max of a section, merged into the states or left as a part.
__device__ void TakeSection(const AttentionWork& work, const StepRun& run,
                            int64_t section, const AttentionShared& shared,
                            float* partials) {
  const int64_t begin = VisibleBegin(run, work.CachePosition(work.first_row));
  const int64_t end =
      VisibleEnd(run, work.CachePosition(work.first_row + work.rows - 1));
  const AttentionArgs& args = work.args;
  LoadSection(work, run, section, begin, end, /*with_values=*/true, shared);
  SyncBlock();
  Score(work, shared);
  SyncBlock();
  constexpr int kWarps = kAttentionThreads / 32;
  for (int q = threadIdx.x / 32; q < work.queries(); q += kWarps) {
    const Part part =
        SoftMax(shared.scores + q * kSectionTokens,
                SeenBy(run, section, work.CachePosition(work.RowOf(q))));
    float* const state = shared.states + 4 * q;
    SyncWarp();
    if (threadIdx.x % 32 != 0) continue;
    if (partials != nullptr) {
      float* const record = partials + q * (args.kv.head_dim + 2);
      record[args.kv.head_dim] = part.largest;
      record[args.kv.head_dim + 1] = part.sum;
    } else {
      const Merging m = Merge(state[0], state[1], part.largest, part.sum);
      state[0] = m.largest;
      state[1] = m.sum;
      state[2] = m.before;
      state[3] = m.now;
    }
  }
  SyncBlock();
  WeighValues(work, shared, [&](int query, int d, float part) {
    if (partials != nullptr) {
      partials[query * (args.kv.head_dim + 2) + d] = part;
    } else {
      const float* const state = shared.states + 4 * query;
      float& out = shared.out[query * args.kv.padded_dim + d];
      out = Fma(out, state[2], part * state[3]);
    }
  });
  SyncBlock();
}

__device__ void Finish(const AttentionWork& work, int query, int d, float out,
                       float largest, float sum) {
  const AttentionArgs& args = work.args;
  const int row = work.RowOf(query), head = work.HeadOf(query);
  args.attended
      .data[int64_t{row} * args.attended.stride + head * args.kv.head_dim + d] =
      out / sum;
  if (d == 0) {
    float* const to =
        args.row_statistics + 2 * (int64_t{row} * args.num_heads + head);
    to[0] = largest;
    to[1] = sum;
  }
}

// All sections, one after the other.
__device__ void AttendWhole(const AttentionWork& work,
                            const AttentionShared& shared) {
  const int dim = work.args.kv.head_dim, stride = work.args.kv.padded_dim;
  for (int i = threadIdx.x; i < work.queries() * stride;
       i += kAttentionThreads) {
    shared.out[i] = 0;
  }
  for (int q = threadIdx.x; q < work.queries(); q += kAttentionThreads) {
    shared.states[4 * q] = kNothing;
    shared.states[4 * q + 1] = 0;
  }
  for (int r = work.chunk.runs_begin; r < work.chunk.runs_end; ++r) {
    const StepRun& run = work.RunAt(r);
    const SectionRange sections = work.Sections(run);
    if (sections.begin == sections.end) continue;
    RotateQueries(work, run, shared);
    for (int64_t s = sections.begin; s < sections.end; ++s) {
      TakeSection(work, run, s, shared, nullptr);
    }
  }
  for (int i = threadIdx.x; i < work.queries() * dim; i += kAttentionThreads) {
    const int query = i / dim, d = i % dim;
    const float* const state = shared.states + 4 * query;
    Finish(work, query, d, shared.out[query * stride + d], state[0], state[1]);
  }
}

// The nth section of all runs, and how many there are.
__device__ void AttendSection(const AttentionWork& work, int group, int nth,
                              const AttentionShared& shared) {
  int total = 0, run_of_nth = -1;
  int64_t section = 0;
  for (int r = work.chunk.runs_begin; r < work.chunk.runs_end; ++r) {
    const SectionRange sections = work.Sections(work.RunAt(r));
    const auto n = static_cast<int>(sections.end - sections.begin);
    if (nth >= total && nth < total + n) {
      run_of_nth = r;
      section = sections.begin + (nth - total);
    }
    total += n;
  }
  if (run_of_nth < 0) return;
  const StepRun& run = work.RunAt(run_of_nth);
  RotateQueries(work, run, shared);
  TakeSection(work, run, section, shared, PartialsOf(work, group, nth));
  const AttentionArgs& args = work.args;
  if (!IsLast(args.arrived + group * args.kv.num_kv_heads + work.kv_head,
              total)) {
    return;
  }
  const int dim = args.kv.head_dim;
  for (int i = threadIdx.x; i < work.queries() * dim; i += kAttentionThreads) {
    const int query = i / dim, d = i % dim;
    float out = 0, largest = kNothing, sum = 0;
    for (int s = 0; s < total; ++s) {
      const float* const record =
          PartialsOf(work, group, s) + query * (dim + 2);
      const Merging m = Merge(largest, sum, LoadFresh(record + dim),
                              LoadFresh(record + dim + 1));
      out = Fma(out, m.before, LoadFresh(record + d) * m.now);
      largest = m.largest;
      sum = m.sum;
    }
    Finish(work, query, d, out, largest, sum);
  }
}

__global__ void __launch_bounds__(kAttentionThreads)
    Attention(AttentionArgs args) {
  WaitForPredecessor();
  const int group = blockIdx.y, kv_head = blockIdx.z;
  if (group >= args.step->num_groups) return;
  const StepGroup& at = ArrayAt<StepGroup>(args.step, args.step->groups)[group];
  const AttentionWork work(args, at.chunk, kv_head, at.first_row, at.rows);
  const AttentionShared shared(DynamicShared<float>(),
                               args.max_group_rows * work.heads,
                               args.kv.padded_dim);
  if (args.max_sections == 0) return AttendWhole(work, shared);
  AttendSection(work, group, blockIdx.x, shared);
}

}  // namespace

void LaunchAttention(Stream* stream, const AttentionArgs& args) {
  const int queries =
      args.max_group_rows * (args.num_heads / args.kv.num_kv_heads);
  const dim3 grid(args.max_sections > 0 ? args.max_sections : 1,
                  args.max_groups, args.kv.num_kv_heads);
  Launch(stream, grid, dim3(kAttentionThreads),
         AttentionSharedBytes(queries, args.kv.padded_dim), Attention, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
