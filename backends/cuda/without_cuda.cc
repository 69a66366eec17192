#include "absl/status/status.h"
#include "backends/cuda/cuda_device.h"

namespace millrace::backends::cuda {

bool IsCompiledIn() { return false; }

absl::StatusOr<std::shared_ptr<Device>> NewCudaDevice() {
  return absl::FailedPreconditionError(
      "start the cuda backend: this program was built without CUDA; build it "
      "where nvcc is installed, or choose another backend");
}

}  // namespace millrace::backends::cuda
