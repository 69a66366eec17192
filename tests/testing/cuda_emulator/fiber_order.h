// In which order the emulator lets the threads of a block run. A kernel whose
// barriers are right gives the same bits in both.
#ifndef MILLRACE_TESTS_TESTING_CUDA_EMULATOR_FIBER_ORDER_H_
#define MILLRACE_TESTS_TESTING_CUDA_EMULATOR_FIBER_ORDER_H_

namespace millrace::backends::cuda::emulated {

enum class FiberOrder { kAscending, kDescending };

// For all launches from now on.
void SetFiberOrder(FiberOrder order);

}  // namespace millrace::backends::cuda::emulated

#endif  // MILLRACE_TESTS_TESTING_CUDA_EMULATOR_FIBER_ORDER_H_
