#include "backends/onednn/step.h"

#include "absl/types/span.h"
#include "backends/onednn/packed_matrix.h"

namespace millrace::backends::onednn {
namespace {

// Angles that a row may need: its key's, and those of queries that differ.
constexpr int kAnglesPerRow = 3;

}  // namespace

Step::Step(int head_dim, double rope_base, int max_rows)
    : rope_(head_dim, rope_base),
      padded_dim_(RoundUp16(head_dim)),
      cosines_(head_dim / 2),
      sines_(head_dim / 2) {
  rows_.reserve(max_rows);
  first_rows_.reserve(max_rows);
  positions_.reserve(kAnglesPerRow * max_rows);
  angles_.reserve(size_t{2} * kAnglesPerRow * padded_dim_ * max_rows);
  run_angles_.reserve(2 * max_rows);
}

int64_t Step::Bytes(int head_dim, int max_rows) {
  return int64_t{max_rows} *
         (sizeof(Row) + 2 * sizeof(int) + sizeof(int) +
          kAnglesPerRow *
              (sizeof(int64_t) + 2 * sizeof(float) * RoundUp16(head_dim)));
}

void Step::Begin(const Batch& batch) {
  batch_ = &batch;
  rows_.clear();
  first_rows_.clear();
  positions_.clear();
  angles_.clear();
  run_angles_.clear();
  for (size_t c = 0; c < batch.chunks.size(); ++c) {
    first_rows_.push_back(num_rows());
    for (int i = 0; i < batch.chunks[c].rows(); ++i) {
      AddRow(batch.chunks[c], static_cast<int>(c), i);
    }
  }
}

void Step::AddRow(const Chunk& chunk, int chunk_index, int i) {
  const int64_t t = chunk.first_position + i;
  const int64_t c = t - chunk.view->row_offset;
  const cache::KvView::Slot slot = chunk.view->Find(c);
  const int runs = static_cast<int>(chunk.view->runs.size());
  const int key = AddAngles(t);
  // Most queries turn like the row's key or, towards sinks, like the query of
  // the row before.
  const int before = i == 0 ? -1 : rows_.back().query_angles;
  const int first = static_cast<int>(run_angles_.size());
  for (int r = 0; r < runs; ++r) {
    const int64_t position = chunk.view->runs[r].rule.QueryPosition(c);
    int index = key;
    if (position != t) {
      index = before >= 0 ? run_angles_[before + r] : -1;
      if (index < 0 || positions_[index] != position) {
        index = AddAngles(position);
      }
    }
    run_angles_.push_back(index);
  }
  rows_.push_back({chunk.token_ids[i], chunk_index, c, slot.kv_block(),
                   slot.slot, key, first});
}

int Step::AddAngles(int64_t position) {
  const int index = static_cast<int>(positions_.size());
  positions_.push_back(position);
  angles_.resize(angles_.size() + size_t{2} * padded_dim_);
  rope_.Angles(position, absl::MakeSpan(cosines_), absl::MakeSpan(sines_));
  float* const cosines = &angles_[index * int64_t{2} * padded_dim_];
  float* const sines = cosines + padded_dim_;
  for (size_t i = 0; i < cosines_.size(); ++i) {
    cosines[2 * i] = cosines[2 * i + 1] = cosines_[i];
    sines[2 * i] = -sines_[i];
    sines[2 * i + 1] = sines_[i];
  }
  return index;
}

}  // namespace millrace::backends::onednn
