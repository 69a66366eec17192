// Multiplies with whatever oneDNN it is linked with, and prints that library's
// version: built twice by onednn_versions_test. Exits with 1 if a product is
// wrong.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "backends/onednn/float_gemm.h"
#include "oneapi/dnnl/dnnl.h"

namespace {

// Numbers that look random, the same every time.
std::vector<float> Numbers(int count, int seed) {
  std::vector<float> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(static_cast<float>(std::sin(1.7 * i + seed)));
  }
  return out;
}

bool Agrees(int outputs, int inputs, int tokens) {
  const std::vector<float> weights = Numbers(outputs * inputs, 1);
  const std::vector<float> x = Numbers(tokens * inputs, 2);
  std::vector<float> out(outputs * tokens, NAN);
  if (!millrace::backends::onednn::FloatGemm(
          weights.data(), outputs, inputs, x.data(), tokens, out.data())) {
    return false;
  }
  for (int t = 0; t < tokens; ++t) {
    for (int o = 0; o < outputs; ++o) {
      double sum = 0;
      for (int i = 0; i < inputs; ++i) {
        sum += double{weights[o * inputs + i]} * x[t * inputs + i];
      }
      if (!(std::abs(out[t * outputs + o] - sum) < 1e-3)) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  const dnnl_version_t* const version = dnnl_version();
  std::printf("%d.%d\n", version->major, version->minor);
  const bool right =
      Agrees(64, 576, 16) && Agrees(64, 1536, 64) && Agrees(7, 33, 17);
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
