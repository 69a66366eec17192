#include "backends/reference/ops.h"

namespace millrace::backends::reference {

void ReferenceOps::AttentionOutput(int layer) {
  AddToResidual(weights_.layers[layer].attention_output, attended_);
}

}  // namespace millrace::backends::reference
