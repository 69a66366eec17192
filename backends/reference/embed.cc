#include <algorithm>

#include "backends/reference/ops.h"

namespace millrace::backends::reference {

void ReferenceOps::Embed() {
  const size_t width = config_.embedding_size;
  for (int r = 0; r < num_rows(); ++r) {
    const float* const from =
        &weights_.embedding.values[rows_[r].token_id * width];
    std::copy_n(from, width, &residual_[r * width]);
  }
}

}  // namespace millrace::backends::reference
