#include "backends/reference/rms_norm.h"

#include <cmath>

namespace millrace::backends::reference {

std::vector<float> RmsNorm(absl::Span<const float> in,
                           absl::Span<const float> weight, float epsilon) {
  std::vector<float> out(in.size());
  for (size_t row = 0; row < in.size(); row += weight.size()) {
    double squares = 0;
    for (size_t i = 0; i < weight.size(); ++i) {
      squares += double{in[row + i]} * in[row + i];
    }
    const float scale =
        static_cast<float>(1 / std::sqrt(squares / weight.size() + epsilon));
    for (size_t i = 0; i < weight.size(); ++i) {
      out[row + i] = in[row + i] * scale * weight[i];
    }
  }
  return out;
}

}  // namespace millrace::backends::reference
