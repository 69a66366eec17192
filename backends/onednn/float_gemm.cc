#include "backends/onednn/float_gemm.h"

#include <omp.h>

#include "oneapi/dnnl/dnnl.h"

namespace millrace::backends::onednn {

bool FloatGemm(const float* weights, int64_t outputs, int64_t inputs,
               const float* x, int64_t tokens, float* out) {
  thread_local bool limited = false;
  if (!limited) {
    omp_set_num_threads(1);  // of regions that this thread starts
    limited = true;
  }
  return dnnl_sgemm('N', 'T', tokens, outputs, inputs, 1.0f, x, inputs, weights,
                    inputs, 0.0f, out, outputs) == dnnl_success;
}

}  // namespace millrace::backends::onednn
