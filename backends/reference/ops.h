// The operations of the decoder, each by its plain formula, in a file of its
// own: the oracle that other backends are held against.
//
// Everything is float; sums are made in the order of the formula (lanes.h), so
// a row's results are the same bits whatever else is in its batch, however its
// text is cut into chunks, and with any number of threads.
#ifndef MILLRACE_BACKENDS_REFERENCE_OPS_H_
#define MILLRACE_BACKENDS_REFERENCE_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "backends/batch.h"
#include "backends/decoder/rope.h"
#include "backends/model_file/model_config.h"
#include "backends/ops.h"
#include "backends/reference/kv_storage.h"
#include "backends/reference/rotations.h"
#include "backends/reference/weights.h"
#include "cache/kv_storage.h"

namespace millrace::backends::reference {

class ReferenceOps final : public Ops {
 public:
  // REQUIRES: weights of the shape of `config`; max_rows, num_threads >= 1.
  ReferenceOps(const ModelConfig& config, Weights weights, int max_rows,
               int num_threads);

  const ModelConfig& config() const override { return config_; }
  int max_rows() const override { return max_rows_; }

  // INVALID_ARGUMENT for the storage of another backend.
  absl::Status Begin(const Batch& batch, cache::KvStorage& kv) override;
  void Embed() override;
  void AttentionInput(int layer) override;
  void Attention(int layer) override;
  void AttentionOutput(int layer) override;
  void FeedForwardIn(int layer) override;
  void FeedForwardOut(int layer) override;
  absl::Status Logits(absl::Span<float> logits) override;
  void Read(Activation which, absl::Span<float> out) const override;
  void Write(Activation which, absl::Span<const float> in) override;

 private:
  struct Row {
    int32_t token_id;
    int64_t cache_position;  // the text position, if the view's row_offset is 0
    cache::KvView::Slot slot;  // where its key and value go
    Rotation key;              // at the text position
  };

  int num_rows() const { return static_cast<int>(rows_.size()); }
  void AddRows(const Chunk& chunk);
  void StoreKey(int layer, const Row& row, absl::Span<float> key);
  void AttendChunk(int layer, const Chunk& chunk, int first_row);
  void AddToResidual(const Matrix& weights, absl::Span<const float> in);
  const std::vector<float>& Buffer(Activation which) const;
  std::vector<float>& Buffer(Activation which);

  const ModelConfig config_;
  const Weights weights_;
  const Rope rope_;
  const int max_rows_;
  const int num_threads_;

  // The step: its rows in batch order, and their activations as ops.h has them.
  const Batch* batch_ = nullptr;
  PlainKvStorage* kv_ = nullptr;
  std::vector<Row> rows_;
  std::vector<float> residual_, query_, attended_, hidden_;
};

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_OPS_H_
