#include "backends/reference/ops.h"
#include "backends/reference/rms_norm.h"

namespace millrace::backends::reference {

void ReferenceOps::AttentionInput(int layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const std::vector<float> in =
      RmsNorm(residual_, weights.attention_norm, config_.rms_epsilon);
  const size_t width = config_.kv_size();
  std::vector<float> keys(rows_.size() * width), values(rows_.size() * width);
  MatMul(weights.query, in, num_rows(), num_threads_, absl::MakeSpan(query_));
  MatMul(weights.key, in, num_rows(), num_threads_, absl::MakeSpan(keys));
  MatMul(weights.value, in, num_rows(), num_threads_, absl::MakeSpan(values));
  for (size_t r = 0; r < rows_.size(); ++r) {
    const Row& row = rows_[r];
    StoreKey(layer, row, absl::MakeSpan(&keys[r * width], width));
    kv_->StoreRow(layer, KvPart::kValue, row.slot.kv_block(), row.slot.slot,
                  absl::MakeConstSpan(&values[r * width], width));
  }
}

// Rotates the heads of `key` in place, and stores it.
void ReferenceOps::StoreKey(int layer, const Row& row, absl::Span<float> key) {
  for (int head = 0; head < config_.num_kv_heads; ++head) {
    Rotate(row.key.cosines, row.key.sines,
           key.subspan(head * config_.head_dim, config_.head_dim));
  }
  kv_->StoreRow(layer, KvPart::kKey, row.slot.kv_block(), row.slot.slot, key);
}

}  // namespace millrace::backends::reference
