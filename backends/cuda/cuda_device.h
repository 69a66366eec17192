// The GPU of this machine. Implemented by cuda_device.cu where a CUDA toolkit
// was found when this program was built, by without_cuda.cc elsewhere.
#ifndef MILLRACE_BACKENDS_CUDA_CUDA_DEVICE_H_
#define MILLRACE_BACKENDS_CUDA_CUDA_DEVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "backends/cuda/device.h"

namespace millrace::backends::cuda {

// Whether this program has code for GPUs.
bool IsCompiledIn();

// The first GPU that CUDA_VISIBLE_DEVICES leaves. FAILED_PRECONDITION says why
// there is none, in one line.
absl::StatusOr<std::shared_ptr<Device>> NewCudaDevice();

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_CUDA_DEVICE_H_
