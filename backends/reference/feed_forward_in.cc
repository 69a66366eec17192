#include <cmath>

#include "backends/reference/ops.h"
#include "backends/reference/rms_norm.h"

namespace millrace::backends::reference {
namespace {

float Silu(float x) { return x / (1 + std::exp(-x)); }

}  // namespace

void ReferenceOps::FeedForwardIn(int layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const std::vector<float> in =
      RmsNorm(residual_, weights.feed_forward_norm, config_.rms_epsilon);
  std::vector<float> up(hidden_.size());
  MatMul(weights.gate, in, num_rows(), num_threads_, absl::MakeSpan(hidden_));
  MatMul(weights.up, in, num_rows(), num_threads_, absl::MakeSpan(up));
  for (size_t i = 0; i < up.size(); ++i) hidden_[i] = Silu(hidden_[i]) * up[i];
}

}  // namespace millrace::backends::reference
