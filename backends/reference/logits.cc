#include "backends/reference/ops.h"
#include "backends/reference/rms_norm.h"

namespace millrace::backends::reference {

absl::Status ReferenceOps::Logits(absl::Span<float> logits) {
  const size_t width = config_.embedding_size;
  std::vector<float> wanted;
  size_t end = 0;  // rows up to the end of the chunk
  for (const Chunk& chunk : batch_->chunks) {
    end += chunk.rows();
    wanted.insert(wanted.end(),
                  residual_.begin() + (end - chunk.num_logits) * width,
                  residual_.begin() + end * width);
  }
  if (wanted.empty()) return absl::OkStatus();
  const std::vector<float> in =
      RmsNorm(wanted, weights_.output_norm, config_.rms_epsilon);
  MatMul(weights_.output(), in, batch_->logits_rows(), num_threads_, logits);
  return absl::OkStatus();
}

}  // namespace millrace::backends::reference
