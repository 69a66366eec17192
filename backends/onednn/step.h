// What the operations of a step need to know about its rows: where each lies
// in the text and in the cache, and the angles at which keys and queries turn.
#ifndef MILLRACE_BACKENDS_ONEDNN_STEP_H_
#define MILLRACE_BACKENDS_ONEDNN_STEP_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backends/batch.h"
#include "backends/decoder/rope.h"
#include "cache/kv_block.h"

namespace millrace::backends::onednn {

// Cosines and sines of all values of a head, padded with zeros to a multiple
// of 16, in the form of Kernels::rotate. Borrowed from the Step.
struct Angles {
  const float* cosines;
  const float* sines;
};

class Step {
 public:
  struct Row {
    int32_t token_id;
    int chunk;
    int64_t cache_position;  // the text's, less its view's row_offset
    cache::KvBlock block;    // where its key and value go
    int slot;
    int key_angles;    // index of an angle
    int query_angles;  // index into run_angles_ of the chunk's first run
  };

  // Memory for `max_rows` rows of two runs; more runs take more.
  Step(int head_dim, double rope_base, int max_rows);
  static int64_t Bytes(int head_dim, int max_rows);

  // `batch` is borrowed until the next Begin.
  void Begin(const Batch& batch);

  const Rope& rope() const { return rope_; }
  const Batch& batch() const { return *batch_; }
  int num_rows() const { return static_cast<int>(rows_.size()); }
  const Row& row(int i) const { return rows_[i]; }
  int first_row(int chunk) const { return first_rows_[chunk]; }

  // Angles of a row's key; of its query towards a run of its chunk's view.
  Angles KeyAngles(int row) const { return At(rows_[row].key_angles); }
  Angles QueryAngles(int row, int run) const {
    return At(run_angles_[rows_[row].query_angles + run]);
  }

 private:
  Angles At(int index) const {
    const float* const cosines = &angles_[index * int64_t{2} * padded_dim_];
    return {cosines, cosines + padded_dim_};
  }
  int AddAngles(int64_t position);
  void AddRow(const Chunk& chunk, int chunk_index, int i);

  const Rope rope_;
  const int padded_dim_;
  const Batch* batch_ = nullptr;
  std::vector<Row> rows_;
  std::vector<int> first_rows_;         // by chunk
  std::vector<int64_t> positions_;      // by index of an angle
  std::vector<float> angles_;           // [index][cosines, sines][padded_dim]
  std::vector<int> run_angles_;         // [row][run], runs as in the row's view
  std::vector<float> cosines_, sines_;  // of one head's pairs
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_STEP_H_
