// The one place where oneDNN is called: products of float matrices for many
// tokens. dnnl_sgemm has the same form in oneDNN 2.x and 3.x, is thread-safe
// and needs no primitive per batch size.
//
// The distribution's library runs its own OpenMP threads. Ours are the only
// pool on these cores, so each of our threads tells OpenMP to use one thread
// and computes a slice of the outputs by itself.
#ifndef MILLRACE_BACKENDS_ONEDNN_FLOAT_GEMM_H_
#define MILLRACE_BACKENDS_ONEDNN_FLOAT_GEMM_H_

#include <cstdint>

namespace millrace::backends::onednn {

// out[t][r] = sum over k of weights[r][k] * x[t][k], t < tokens, r < outputs;
// rows of out are `outputs` floats. Runs in the calling thread alone.
// Returns false if the library failed.
bool FloatGemm(const float* weights, int64_t outputs, int64_t inputs,
               const float* x, int64_t tokens, float* out);

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_FLOAT_GEMM_H_
