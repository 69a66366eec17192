// A backends/cuda device without a GPU: kernels run on the CPU (emulator.h),
// graphs are kept and replayed, and memory is full of NaN until it is written.
// Work is done when somebody waits for it, and no sooner.
#ifndef MILLRACE_TESTS_TESTING_CUDA_EMULATOR_EMULATED_DEVICE_H_
#define MILLRACE_TESTS_TESTING_CUDA_EMULATOR_EMULATED_DEVICE_H_

#include <cstdint>
#include <memory>

#include "backends/cuda/device.h"

namespace millrace::backends::cuda {

struct EmulatedDeviceOptions {
  // So few that tests divide attention among blocks, and so many that they
  // also do not.
  int num_multiprocessors = 8;
  // Bytes that can be allocated.
  int64_t memory = int64_t{1} << 40;
};

// What tests look at.
struct EmulatedDeviceStats {
  int64_t allocated = 0;  // bytes, at the moment
  int64_t most = 0;       // at any time
  int64_t allocations = 0;
  int64_t captures = 0;
  int64_t launches = 0;         // of graphs
  int64_t launches_behind = 0;  // before the last one was done
  int64_t kernels = 0;
};

class EmulatedDevice : public Device {
 public:
  virtual EmulatedDeviceStats stats() const = 0;
  // From now on every Synchronize and Wait fails, as after an error of the device.
  virtual void Break() = 0;
};

std::shared_ptr<EmulatedDevice> NewEmulatedDevice(
    const EmulatedDeviceOptions& options = {});

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_TESTS_TESTING_CUDA_EMULATOR_EMULATED_DEVICE_H_
