// What one step of the engine computes: rows of several sequences at once.
#ifndef MILLRACE_BACKENDS_BATCH_H_
#define MILLRACE_BACKENDS_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backends/row_sampling.h"
#include "cache/kv_view.h"

namespace millrace::backends {

// Consecutive new tokens of one sequence: one while decoding, more in prefill.
struct Chunk {
  // Ids below the vocabulary size; at least one. Borrowed.
  absl::Span<const int32_t> token_ids;
  // Text position of token_ids[0].
  int64_t first_position = 0;
  // What the rows read, as CacheManager::Reserve gave it: the slots of the new
  // tokens themselves are in its runs. Borrowed.
  const cache::KvView* view = nullptr;
  // Logits are wanted of so many rows, counted from the last; 0 .. the number
  // of tokens.
  int num_logits = 0;
  // How a token is picked of each of those rows, instead: empty, or num_logits
  // long. Only for models with a StepQueue. Borrowed.
  absl::Span<const RowSampling> sampling = {};
  // Where those tokens go, as long as `sampling`; -1: a logit of the row,
  // before adjustments, is NaN or infinite. Borrowed.
  absl::Span<int32_t> picked = {};
  // If 0 or more: the chunk's one token is still being picked. It is the one of
  // this number among those that the step before picks, in the order of chunks
  // and rows; token_ids[0] stands for it. A -1 is read as token 0. Only for a
  // step that a StepQueue begins behind another.
  int picked_before = -1;

  int rows() const { return static_cast<int>(token_ids.size()); }
};

// The chunks of one step. A sequence has at most one chunk in a batch. What a
// row computes does not depend on the other chunks.
struct Batch {
  std::vector<Chunk> chunks;

  int rows() const {
    int n = 0;
    for (const Chunk& chunk : chunks) n += chunk.rows();
    return n;
  }
  // Without those of which tokens are picked.
  int logits_rows() const {
    int n = 0;
    for (const Chunk& chunk : chunks) {
      if (chunk.sampling.empty()) n += chunk.num_logits;
    }
    return n;
  }
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_BATCH_H_
