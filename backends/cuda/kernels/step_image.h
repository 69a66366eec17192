// What a step is about, as kernels read it: one stretch of memory that is
// uploaded at once. Kernels are launched alike for many steps (as a graph), so
// everything that differs from step to step is in here.
//
//   StepHeader, then arrays at the offsets that it says, each 16-aligned
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_STEP_IMAGE_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_STEP_IMAGE_H_

#include <cstdint>

#include "backends/row_sampling.h"

namespace millrace::backends::cuda {

struct StepHeader {
  int32_t num_rows, num_groups, num_chunks, num_logits, num_picks;
  int32_t num_decode_groups, num_tensor_groups, unused;
  // Offsets in bytes from the header.
  int64_t rows, groups, decode_groups, tensor_groups, chunks, runs, tables,
      logits_rows, picks, adjustments;
};

// A token of the batch.
struct StepRow {
  int64_t text_position;
  int64_t cache_position;  // text position less the view's row_offset
  // Negative: -1 - the number of the token among those that the step before
  // has picked.
  int32_t token_id;
  // Where its key and value go: cache/kv_block.h.
  int32_t block, value_block, slot;
};

// Consecutive rows of a chunk whose attention a thread block takes together. A
// row is in a group of attention.cu, decode_attention.cu or
// tensor_attention.cu.
struct StepGroup {
  int32_t chunk, first_row, rows, unused;
};

// Rows of one sequence, and what they read: cache/kv_view.h.
struct StepChunk {
  int32_t first_row, rows;
  int32_t runs_begin, runs_end;
  // Offsets of [layer][kv_head][...] tables; 0: none.
  int64_t key_positions, key_positions_capacity;  // int64
  int64_t sums, sums_capacity;                    // float
  int64_t row_weights;                            // float, [rows]
  float decay;
  int32_t unused;
};

// A run of the chunk's view, in ascending positions.
struct StepRun {
  int64_t begin, window, query_cap, shift;  // its rule
  int64_t first_position, length;
  int32_t first_slot;
  int32_t blocks;        // index of its first block in `tables`
  int32_t value_blocks;  // the same of a wide run; -1: not wide
  int32_t unused;
};

// A row of logits of which a token is picked: row_sampling.h.
struct StepPick {
  double uniform;
  int32_t logits_row;  // among those whose logits are computed
  int32_t adjustments_begin, adjustments_end;  // LogitAdjustment
  int32_t top_k;
  float temperature, top_p, min_p;
  Penalties of_unknown;
  int32_t picked_before;  // the number of that token; -1: all are known
  int32_t unused;
};

template <class T>
constexpr const T* ArrayAt(const StepHeader* step, int64_t offset) {
  return reinterpret_cast<const T*>(reinterpret_cast<const uint8_t*>(step) +
                                    offset);
}

constexpr int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t Most(int64_t a, int64_t b) { return a < b ? b : a; }

// Where the row at cache position c looks from, and what it sees of the run:
// positions begin .. end - 1, none if they cross.
constexpr int64_t QueryPosition(const StepRun& run, int64_t c) {
  return Least(c - run.shift, run.query_cap);
}
constexpr int64_t VisibleBegin(const StepRun& run, int64_t c) {
  const int64_t first =
      run.window > c ? run.begin : Most(run.begin, c - run.window);
  return Most(first, run.first_position);
}
constexpr int64_t VisibleEnd(const StepRun& run, int64_t c) {
  return Least(c + 1, run.first_position + run.length);
}

// Attention is cut at multiples of 64 cache positions, run by run. On the float
// units the parts are merged in order: what a row gets does not depend on its
// company.
inline constexpr int kSectionTokens = 64;

// Sections of the run that rows at cache positions first .. last see part of.
struct SectionRange {
  int64_t begin, end;
};
constexpr SectionRange SectionsOf(const StepRun& run, int64_t first,
                                  int64_t last) {
  // What a row sees never begins before what the row before it sees.
  const int64_t begin = VisibleBegin(run, first), end = VisibleEnd(run, last);
  if (begin >= end) return {0, 0};
  return {begin / kSectionTokens, (end - 1) / kSectionTokens + 1};
}

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_STEP_IMAGE_H_
