#include "backends/reference/ops.h"

namespace millrace::backends::reference {

void ReferenceOps::FeedForwardOut(int layer) {
  AddToResidual(weights_.layers[layer].down, hidden_);
}

}  // namespace millrace::backends::reference
