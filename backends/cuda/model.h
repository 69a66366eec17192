// A model on a GPU: a step is one graph of kernels, captured once for each
// shape of a step and launched from then on.
#ifndef MILLRACE_BACKENDS_CUDA_MODEL_H_
#define MILLRACE_BACKENDS_CUDA_MODEL_H_

#include <memory>

#include "backends/cuda/ops.h"
#include "backends/model.h"

namespace millrace::backends::cuda {

std::unique_ptr<Model> NewGraphModel(std::unique_ptr<CudaOps> ops);

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_MODEL_H_
