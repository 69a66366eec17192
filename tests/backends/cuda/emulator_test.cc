// The emulator itself: a barrier holds threads back, a missing one shows.

#include "tests/testing/cuda_emulator/emulator.h"

#include <cmath>
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
  EXPECT_TRUE(device->Synchronize().ok());
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

// What a lane holds, as the PTX ISA draws the fragments of m16n8k16: lane 4 g +
// t has a0, a1 at (g, 2 t ..), a2, a3 at (g + 8, 2 t ..), a4 .. a7 eight
// columns on; b0, b1 at (2 t .., g), b2, b3 eight rows on; c0, c1 at (g, 2 t
// ..), c2, c3 at (g + 8, 2 t ..).
float A(int row, int column) { return row == 9 ? column : row % 3; }
float B(int row, int column) { return row == 13 ? 1 + column : row == column; }

void Multiply(Args args) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const uint32_t a[4] = {PairOf(A(g, 2 * t), A(g, 2 * t + 1)),
                         PairOf(A(g + 8, 2 * t), A(g + 8, 2 * t + 1)),
                         PairOf(A(g, 2 * t + 8), A(g, 2 * t + 9)),
                         PairOf(A(g + 8, 2 * t + 8), A(g + 8, 2 * t + 9))};
  const uint32_t b[2] = {PairOf(B(2 * t, g), B(2 * t + 1, g)),
                         PairOf(B(2 * t + 8, g), B(2 * t + 9, g))};
  float c[4] = {100, 100, 100, 100};
  MultiplyAdd(c, a, b);
  for (int i = 0; i < 4; ++i) {
    args.out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
  }
}

void RunWarp(void (*kernel)(Args), float* out) {
  const auto device = NewEmulatedDevice();
  Launch(device->stream(), dim3(1), dim3(32), 4096, kernel, Args{out});
  EXPECT_TRUE(device->Synchronize().ok());
}

TEST(EmulatorTest, TensorCoresMultiplyFragmentsOfThePtxIsa) {
  std::vector<float> out(16 * 8);
  RunWarp(Multiply, out.data());
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float expected = 100;
      for (int k = 0; k < 16; ++k) expected += A(row, k) * B(k, column);
      EXPECT_EQ(out[row * 8 + column], expected) << row << ", " << column;
    }
  }
  EXPECT_EQ(out[9 * 8 + 2], 100 + 2 + 13 * 3);
}

// Matrix i is of numbers 64 i + 8 row + column, row j of it at 16 (8 i + j).
void LoadFour(Args args) {
  auto* const shared = DynamicShared<uint16_t>();
  for (int i = 0; i < 8; ++i) {
    shared[8 * threadIdx.x + i] = static_cast<uint16_t>(8 * threadIdx.x + i);
  }
  SyncWarp();
  uint32_t out[4];
  LoadMatrices(shared + 8 * threadIdx.x, out);
  for (int i = 0; i < 4; ++i) {
    args.out[8 * threadIdx.x + 2 * i] = static_cast<float>(out[i] & 0xffff);
    args.out[8 * threadIdx.x + 2 * i + 1] = static_cast<float>(out[i] >> 16);
  }
}

TEST(EmulatorTest, ALaneGetsTwoNumbersOfARowOfEachMatrix) {
  std::vector<float> out(32 * 8);
  RunWarp(LoadFour, out.data());
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int first = 64 * i + lane / 4 * 8 + lane % 4 * 2;
      EXPECT_EQ(out[8 * lane + 2 * i], first);
      EXPECT_EQ(out[8 * lane + 2 * i + 1], first + 1);
    }
  }
}

alignas(16) constexpr float kSource[8] = {1, 2, 3, 4, 5, 6, 7, 8};

// Two groups of a copy each; what is there while one may be on its way.
void CopyInGroups(Args args) {
  if (threadIdx.x == 0) {
    auto* const shared = DynamicShared<float>();
    for (int i = 0; i < 2; ++i) {
      CopyAsync(shared + 4 * i, kSource + 4 * i);
      CommitCopies();
    }
    WaitForCopies<1>();
    args.out[0] = shared[3];
    args.out[1] = shared[7];
    WaitForCopies<0>();
    args.out[2] = shared[7];
  }
  SyncBlock();
}

TEST(EmulatorTest, ACopyIsThereWhenItsGroupWasWaitedFor) {
  float out[3];
  RunWarp(CopyInGroups, out);
  EXPECT_EQ(out[0], 4);
  EXPECT_TRUE(std::isnan(out[1]));
  EXPECT_EQ(out[2], 8);
}

TEST(EmulatorTest, PairsAreRoundedToHalfPrecision) {
  EXPECT_EQ(PairOf(1, -2), 0xc0003c00u);
  EXPECT_EQ(AddPairs(PairOf(1, -2), PairOf(3, 2)), PairOf(4, 0));
  EXPECT_EQ(FmaPairs(PairOf(3, 5), PairOf(7, 2), PairOf(1, 0.5)),
            PairOf(22, 10.5));
  EXPECT_EQ(PairOf(1 + 0x1p-12f, 1 + 0x1p-11f + 0x1p-13f), 0x3c013c00u);
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
