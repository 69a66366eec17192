// A model on a GPU: a step is one graph of kernels, captured once for each
// shape of a step and launched from then on.
#ifndef MILLRACE_BACKENDS_CUDA_MODEL_H_
#define MILLRACE_BACKENDS_CUDA_MODEL_H_

#include <cstdint>
#include <memory>

#include "backends/cuda/ops.h"
#include "backends/model.h"

namespace millrace::backends::cuda {

// A step with more than `table_bytes` of tables of heads is done in pieces.
std::unique_ptr<Model> NewGraphModel(
    std::unique_ptr<CudaOps> ops,
    int64_t table_bytes = CudaOps::kHeadTableBytes);

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_MODEL_H_
