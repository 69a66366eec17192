// The emulator itself: a barrier holds threads back, a missing one shows.

#include "tests/testing/cuda_emulator/emulator.h"

#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/cuda_emulator/emulated_device.h"
#include "tests/testing/cuda_emulator/fiber_order.h"

namespace millrace::backends::cuda::emulated {
namespace {

constexpr int kThreads = 96;

struct Args {
  float* out;
};

// Each thread reads what its neighbour has put down.
template <bool kWaits>
void Rotate(Args args) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = static_cast<float>(threadIdx.x + blockIdx.x * kThreads);
  if (kWaits) SyncBlock();
  args.out[blockIdx.x * kThreads + threadIdx.x] =
      shared[(threadIdx.x + 1) % kThreads];
  SyncBlock();
}

std::vector<float> ResultsOf(void (*kernel)(Args), FiberOrder order) {
  std::vector<float> out(3 * kThreads);
  SetFiberOrder(order);
  const auto device = NewEmulatedDevice();
  Launch(device->stream(), dim3(3), dim3(kThreads), 0, kernel,
         Args{out.data()});
  SetFiberOrder(FiberOrder::kAscending);
  return out;
}

TEST(EmulatorTest, ABarrierLetsThreadsSeeOneAnother) {
  const std::vector<float> out =
      ResultsOf(Rotate<true>, FiberOrder::kAscending);
  EXPECT_EQ(out[0], 1);
  EXPECT_EQ(out[kThreads - 1], 0);
  EXPECT_EQ(out[2 * kThreads + 5], 2 * kThreads + 6);
  EXPECT_EQ(ResultsOf(Rotate<true>, FiberOrder::kDescending), out);
}

TEST(EmulatorTest, AMissingBarrierShowsInTheOrderOfThreads) {
  EXPECT_NE(ResultsOf(Rotate<false>, FiberOrder::kAscending),
            ResultsOf(Rotate<false>, FiberOrder::kDescending));
}

void Sums(Args args) {
  float fours[2] = {static_cast<float>(threadIdx.x), 1};
  AddUpFours(fours);
  const float x = static_cast<float>(threadIdx.x % 32);
  args.out[threadIdx.x] =
      SumOfWarp(x) + LargestOfWarp(-x) + 1000 * fours[0] + 1000000 * fours[1];
}

TEST(EmulatorTest, LanesAddUp) {
  const std::vector<float> out = ResultsOf(Sums, FiberOrder::kDescending);
  EXPECT_EQ(out[0], 496 + 1000 * 6 + 4000000);
  EXPECT_EQ(out[37], 496 + 1000 * (36 + 37 + 38 + 39) + 4000000);
}

void LeaveEarly(Args) {
  if (threadIdx.x == 3) return;
  SyncBlock();
}

TEST(EmulatorDeathTest, ABarrierThatNotAllReachEndsTheProcess) {
  EXPECT_DEATH(ResultsOf(LeaveEarly, FiberOrder::kAscending),
               "threads left before a barrier");
}

}  // namespace
}  // namespace millrace::backends::cuda::emulated
