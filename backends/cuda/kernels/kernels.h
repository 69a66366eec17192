// The kernels, as the host starts them: a table of functions that put work into
// a stream and return at once. One table launches them on a GPU, another runs
// them on the emulator (tests/testing/cuda_emulator).
//
// Numbers of rows and what they are about are read from the step's image on the
// device; the shapes of launches are given by the host and may be larger.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_KERNELS_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_KERNELS_H_

#include <cstdint>

#include "backends/cuda/kernels/kv_memory.h"
#include "backends/cuda/kernels/step_image.h"
#include "backends/cuda/kernels/weight_tiles.h"

namespace millrace::backends::cuda {

// A queue of work on a device. Opaque.
struct Stream;

// Rows of floats, `stride` apart: the width up to a multiple of 32; what is
// beyond the width is zero.
struct Rows {
  float* data = nullptr;
  int stride = 0;
};

// Rows of `Rows` in half precision, with the same stride, for the tensor cores;
// row r is to be multiplied by factors[r].
struct HalfRows {
  uint16_t* data = nullptr;
  float* factors = nullptr;
};

struct EmbedArgs {
  const StepHeader* step;
  const int32_t* picked;  // by the step before
  Matrix embedding;
  Rows residual;
};

// What becomes of a product.
enum class ProductEnd {
  kStore,  // out = product
  // The same, and parts 1 and 2 are keys and values: keys are rotated at their
  // rows' text positions, both are rounded and stored in the rows' slots, and
  // what is in their `out` is left open.
  kStoreKv,
  kAdd,   // out += product
  kGate,  // out = silu(product with matrix 0) * product with matrix 1
};

// Where keys and values of a layer go.
struct KvPlace {
  KvMemory memory;
  int layer;
  const uint64_t* turns;  // rope steps, [head_dim / 2]
};

// out[row] = matrix * rms_norm(in[row]), for all rows of the step or those
// whose logits are wanted.
struct ProductArgs {
  const StepHeader* step;
  bool wanted_rows;  // those whose logits are wanted, one after the other
  int max_rows;      // of the launch
  Rows in;
  const float* norm;  // weights, as long as a row; null: rows as they are
  float epsilon;
  // Up to three matrices of the same inputs.
  struct Part {
    Matrix matrix;
    Rows out;
  };
  int num_parts;
  Part parts[3];
  ProductEnd end;
  KvPlace kv;  // of kStoreKv
  // Room for max_rows of `in`. Null: the tensor cores are not used.
  HalfRows halves;
  int multiprocessors;
};

// Launches for so many rows use the tensor cores if they may: `halves` is
// there, no weight is beyond half precision, and a gate's matrices are of one
// type.
inline constexpr int kTensorRows = 16;

// Queries, rows times heads that share a KV head, of a tensor group, and the
// largest head whose attention the tensor cores take.
inline constexpr int kTensorQueries = 64;
inline constexpr int kTensorHeadDim = 128;

// The same of a decode group, and the two sizes of head that it is for. Keys
// and values are in half precision or in 8 bits.
inline constexpr int kDecodeQueries = 8;
inline constexpr int kDecodeSections = 4;  // that a block takes at a time
constexpr bool IsDecodeHeadDim(int head_dim) {
  return head_dim == 64 || head_dim == 128;
}
constexpr bool IsDecodeDtype(cache::KvDtype dtype) {
  return dtype == cache::KvDtype::kF16 || dtype == cache::KvDtype::kInt8;
}

struct AttentionArgs {
  const StepHeader* step;
  // Of the launch. Sections 0: a thread block takes all sections of its group,
  // one after the other; else one each, and the last to finish merges.
  int max_groups, max_sections;
  int max_group_rows;
  // A decode group's sections are divided among so many thread blocks, 1 or
  // more, whatever their number.
  int max_decode_groups, decode_blocks;
  int max_tensor_groups;
  KvMemory kv;
  int layer;
  int num_heads;
  Rows query, attended;
  const uint64_t* turns;
  float scale;  // 1 / sqrt(head_dim)
  // [row][num_heads] of the largest score and the sum of exponentials.
  float* row_statistics;
  // [group][kv_head][section, or block of a decode group][query][head_dim + 2],
  // and how many of them have arrived, [group][kv_head], zero between launches.
  float* partials;
  int* arrived;
};

// Adds up how much attention rows paid, for the chunks that ask: the second
// pass after Attention, from its statistics.
struct AttentionSumsArgs {
  AttentionArgs attention;
  int max_chunks;
  int max_positions;  // the largest sums_capacity
};

// Picks tokens from rows of logits, which it changes. -1: not all are finite.
struct PickArgs {
  const StepHeader* step;
  int max_picks;  // of the launch
  Rows logits;
  int vocabulary_size;    // at most 2^24
  const int32_t* before;  // what the step before has picked
  int32_t* ids;           // [max_picks]
};

// Blocks to and from the canonical form of cache/kv_storage.h.
struct KvBlocksArgs {
  KvMemory kv;
  const int32_t* blocks;  // [num_blocks][2]: block, value block or -1
  int num_blocks;
  float* numbers;
};

// Moves within lists, one after another; lists are independent.
struct KvMoveList {
  int32_t layer, kv_head, begin, end;
};
struct KvMove {
  int32_t from_block, from_value_block, from_slot;
  int32_t to_block, to_value_block, to_slot;
};
struct MoveSlotsArgs {
  KvMemory kv;
  const KvMoveList* lists;
  int num_lists;
  const KvMove* moves;
};

struct Kernels {
  void (*embed)(Stream*, int max_rows, const EmbedArgs&);
  void (*product)(Stream*, const ProductArgs&);
  void (*attention)(Stream*, const AttentionArgs&);
  void (*decode_attention)(Stream*, const AttentionArgs&);
  void (*tensor_attention)(Stream*, const AttentionArgs&);
  void (*attention_sums)(Stream*, const AttentionSumsArgs&);
  void (*pick)(Stream*, const PickArgs&);
  void (*read_blocks)(Stream*, const KvBlocksArgs&);
  void (*write_blocks)(Stream*, const KvBlocksArgs&);
  void (*move_slots)(Stream*, const MoveSlotsArgs&);
};

// Bytes of shared memory that attention takes for a group of so many queries.
constexpr int64_t AttentionSharedBytes(int queries, int padded_dim) {
  return int64_t{4} * (2 * kSectionTokens * (padded_dim + 1) +
                       queries * (2 * padded_dim + kSectionTokens + 4));
}

// The same on the tensor cores; no more for smaller heads.
inline constexpr int64_t kTensorAttentionBytes =
    int64_t{2} * (kTensorQueries + 2 * kSectionTokens) * (kTensorHeadDim + 8) +
    1024;

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_KERNELS_H_
