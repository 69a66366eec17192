// How much attention the rows of a chunk pay to each cache position, added up
// row by row for the policies that ask (cache/kv_view.h).
//
//   grid     a block for each section of 64 positions, chunk that asks, KV head
//   threads  128 for scores; then 64, a position each
//   shared   as attention, without values
//   bytes    keys once more; the sums read and written once
//   bound    by the float units: scores are computed a second time. Nothing is
//            kept of the first: that would be 4 bytes for each query and
//            position of a layer.
//
// The probability of a position follows from its score and the row's largest
// score and sum, which attention left behind.
#include "backends/cuda/kernels/attention_section.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

// Rows that are scored at once.
__device__ int RowsAtOnce(const AttentionArgs& args, int rows_left) {
  return rows_left < args.max_group_rows ? rows_left : args.max_group_rows;
}

// What the row's heads give to a token of the section.
__device__ float Given(const AttentionWork& work, int row_of_group, int token,
                       const AttentionShared& shared) {
  float given = 0;
  for (int h = 0; h < work.heads; ++h) {
    const int query = row_of_group * work.heads + h;
    const float* const statistics =
        work.args.row_statistics +
        2 * (int64_t{work.RowOf(query)} * work.args.num_heads +
             work.HeadOf(query));
    const float score = shared.scores[query * kSectionTokens + token];
    given += expf(score - statistics[0]) / statistics[1];
  }
  return given;
}

__global__ void __launch_bounds__(kAttentionThreads)
    AttentionSums(AttentionSumsArgs sums_args) {
  WaitForPredecessor();
  const AttentionArgs& args = sums_args.attention;
  const int64_t section = blockIdx.x;
  const int kv_head = blockIdx.z;
  if (static_cast<int>(blockIdx.y) >= args.step->num_chunks) return;
  const AttentionWork all(args, blockIdx.y, kv_head, 0, 0);
  const StepChunk& chunk = all.chunk;
  if (chunk.sums == 0 || section * kSectionTokens >= chunk.sums_capacity) {
    return;
  }
  const int heads = args.num_heads / args.kv.num_kv_heads;
  const AttentionShared shared(DynamicShared<float>(),
                               args.max_group_rows * heads, args.kv.padded_dim);
  const auto* const weights = ArrayAt<float>(args.step, chunk.row_weights);
  const int token = threadIdx.x;
  const int64_t position = section * kSectionTokens + token;
  // The sums are the one part of the image that kernels write.
  float* const table = const_cast<float*>(
      ArrayAt<float>(args.step, chunk.sums) +
      (int64_t{args.layer} * args.kv.num_kv_heads + kv_head) *
          chunk.sums_capacity);
  const bool has_position =
      token < kSectionTokens && position < chunk.sums_capacity;
  float sum = has_position ? table[position] : 0;

  // A position is in one run, or in none: then it only decays.
  bool is_done = false;
  for (int r = chunk.runs_begin; r < chunk.runs_end; ++r) {
    const StepRun& run = all.RunAt(r);
    const int64_t end = run.first_position + run.length;
    if (run.first_position >= (section + 1) * kSectionTokens ||
        end <= section * kSectionTokens) {
      continue;
    }
    const bool is_mine =
        has_position && position >= run.first_position && position < end;
    is_done |= is_mine;
    LoadSection(all, run, section, run.first_position, end,
                /*with_values=*/false, shared);
    for (int first = 0; first < chunk.rows;) {
      const int rows = RowsAtOnce(args, chunk.rows - first);
      const AttentionWork work(args, blockIdx.y, kv_head,
                               chunk.first_row + first, rows);
      RotateQueries(work, run, shared);
      SyncBlock();
      Score(work, shared);
      SyncBlock();
      for (int i = 0; is_mine && i < rows; ++i) {
        const float weight = weights[first + i];
        sum *= chunk.decay;
        const TokenRange seen =
            SeenBy(run, section, work.CachePosition(work.first_row + i));
        if (weight != 0 && token >= seen.from && token < seen.to) {
          sum = Fma(weight, Given(work, i, token, shared), sum);
        }
      }
      SyncBlock();
      first += rows;
    }
  }
  for (int i = 0; !is_done && i < chunk.rows; ++i) sum *= chunk.decay;
  if (has_position) table[position] = sum;
}

}  // namespace

void LaunchAttentionSums(Stream* stream, const AttentionSumsArgs& args) {
  const AttentionArgs& attention = args.attention;
  const int queries = attention.max_group_rows *
                      (attention.num_heads / attention.kv.num_kv_heads);
  const int sections =
      (args.max_positions + kSectionTokens - 1) / kSectionTokens;
  Launch(stream, dim3(sections, args.max_chunks, attention.kv.num_kv_heads),
         dim3(kAttentionThreads),
         AttentionSharedBytes(queries, attention.kv.padded_dim), AttentionSums,
         args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
