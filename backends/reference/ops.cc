#include "backends/reference/ops.h"

#include <algorithm>
#include <utility>

namespace millrace::backends::reference {

ReferenceOps::ReferenceOps(const ModelConfig& config, Weights weights,
                           int max_rows, int num_threads)
    : config_(config),
      weights_(std::move(weights)),
      rope_(config.head_dim, config.rope_base),
      max_rows_(max_rows),
      num_threads_(num_threads) {}

absl::Status ReferenceOps::Begin(const Batch& batch, cache::KvStorage& kv) {
  kv_ = dynamic_cast<PlainKvStorage*>(&kv);
  if (kv_ == nullptr) {
    return absl::InvalidArgumentError(
        "begin a step: the KV storage is of another backend; use one that the "
        "reference backend made");
  }
  batch_ = &batch;
  rows_.clear();
  for (const Chunk& chunk : batch.chunks) AddRows(chunk);
  const size_t rows = rows_.size();
  residual_.assign(rows * config_.embedding_size, 0);
  query_.assign(rows * config_.query_size(), 0);
  attended_.assign(rows * config_.query_size(), 0);
  hidden_.assign(rows * config_.feed_forward_size, 0);
  return absl::OkStatus();
}

void ReferenceOps::AddRows(const Chunk& chunk) {
  for (int i = 0; i < chunk.rows(); ++i) {
    const int64_t t = chunk.first_position + i;
    const int64_t c = t - chunk.view->row_offset;
    rows_.push_back({.token_id = chunk.token_ids[i],
                     .cache_position = c,
                     .slot = chunk.view->Find(c),
                     .key = RotationAt(rope_, t)});
  }
}

void ReferenceOps::AddToResidual(const Matrix& weights,
                                 absl::Span<const float> in) {
  std::vector<float> out(residual_.size());
  MatMul(weights, in, num_rows(), num_threads_, absl::MakeSpan(out));
  for (size_t i = 0; i < out.size(); ++i) residual_[i] += out[i];
}

const std::vector<float>& ReferenceOps::Buffer(Activation which) const {
  switch (which) {
    case Activation::kResidual:
      return residual_;
    case Activation::kQuery:
      return query_;
    case Activation::kAttended:
      return attended_;
    case Activation::kHidden:
      break;
  }
  return hidden_;
}

std::vector<float>& ReferenceOps::Buffer(Activation which) {
  return const_cast<std::vector<float>&>(std::as_const(*this).Buffer(which));
}

void ReferenceOps::Read(Activation which, absl::Span<float> out) const {
  const std::vector<float>& buffer = Buffer(which);
  std::copy(buffer.begin(), buffer.end(), out.begin());
}

void ReferenceOps::Write(Activation which, absl::Span<const float> in) {
  Buffer(which).assign(in.begin(), in.end());
}

}  // namespace millrace::backends::reference
