// The GPU backend: NVIDIA GPUs of compute capability 8.0 and higher.
#ifndef MILLRACE_BACKENDS_CUDA_BACKEND_H_
#define MILLRACE_BACKENDS_CUDA_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "backends/backend.h"
#include "backends/cuda/device.h"

namespace millrace::backends {

// FAILED_PRECONDITION without a device, or if kernels of the CPU are asked for;
// INVALID_ARGUMENT for a number of threads below 1, which is not used.
absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(
    const BackendOptions& options);

// The same on a given device.
absl::StatusOr<std::unique_ptr<Backend>> NewBackendOnDevice(
    const BackendOptions& options, std::shared_ptr<cuda::Device> device);

// Whether NewCudaBackend may ever succeed in this program.
bool IsCudaCompiledIn();

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_CUDA_BACKEND_H_
