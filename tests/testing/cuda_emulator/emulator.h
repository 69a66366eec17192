// Kernels of backends/cuda/kernels run on the CPU: what target.h offers, as
// plain C++.
//
// A launch runs its thread blocks one after the other. Each thread of a block
// is a fiber with a stack of its own, which runs until it waits for others: at
// a barrier of the block or of its warp. So a kernel's own loops, indices,
// shared memory, barriers and shuffles are what is tested. Not what a GPU alone
// can show: memory order between blocks, alignment of wide loads by hardware,
// bank conflicts, speed.
//
//   fibers in ascending order, or descending    a missing barrier shows as
//                                               different results
//   shared memory full of NaN at first          as does what is not written,
//                                               but not in static memory
//   a barrier that not all threads reach        ends the process
//
// Thread-safe: grids that several threads launch run one after the other.
#ifndef MILLRACE_TESTS_TESTING_CUDA_EMULATOR_EMULATOR_H_
#define MILLRACE_TESTS_TESTING_CUDA_EMULATOR_EMULATOR_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "absl/base/casts.h"
#include "absl/functional/function_ref.h"
#include "backends/cuda/kernels/kernels.h"
#include "backends/quant/half.h"

#define MILLRACE_CUDA_CODE emulated
#define __global__
#define __device__
#define __launch_bounds__(...)
// Blocks run one after the other, so they can share their shared memory.
#define __shared__ static

struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Of the running fiber.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace millrace::backends::cuda::emulated {

// ---- Number formats ----

extern const float* const kHalves;  // every number of half precision

inline float WidenHalf(uint16_t x) { return kHalves[x]; }
inline uint16_t NarrowHalf(float x) { return FloatToHalf(x); }
inline float WidenBfloat(uint16_t x) {
  return absl::bit_cast<float>(uint32_t{x} << 16);
}
inline uint16_t NarrowBfloat(float x) { return FloatToBfloat16(x); }
inline uint32_t BitsOf(float x) { return absl::bit_cast<uint32_t>(x); }
inline float FloatOf(uint32_t bits) { return absl::bit_cast<float>(bits); }
inline uint32_t ChooseBytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = uint64_t{b} << 32 | a;
  uint32_t chosen = 0;
  for (int i = 0; i < 4; ++i) {
    const uint64_t byte = both >> (selector >> 4 * i & 7) * 8 & 0xff;
    chosen |= static_cast<uint32_t>(byte << 8 * i);
  }
  return chosen;
}
// Rounded twice: a fused one would be a call of a function here.
inline float Fma(float a, float b, float c) { return a * b + c; }

// ---- Threads ----

void SyncBlock();
void SyncWarp();
// Lets every lane of the warp put down `bytes` bytes, and shows all 32.
const void* ExchangeInWarp(const void* mine, size_t bytes);
void* DynamicSharedMemory();

inline int LaneOfThread() { return static_cast<int>(threadIdx.x % 32); }

// In the order in which shuffles would add up: every exchange costs much more
// than a few sums.
inline float SumOfWarp(float x) {
  float all[32];
  std::memcpy(all, ExchangeInWarp(&x, sizeof(x)), sizeof(all));
  for (int n = 16; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) all[i] += all[i + n];
  }
  return all[0];
}
inline float LargestOfWarp(float x) {
  const auto* all = static_cast<const float*>(ExchangeInWarp(&x, sizeof(x)));
  for (int i = 0; i < 32; ++i) x = std::fmax(x, all[i]);
  return x;
}
template <int kCount>
void AddUpFours(float (&x)[kCount]) {
  const auto* all = static_cast<const float*>(ExchangeInWarp(x, sizeof(x)));
  const float* const four = all + LaneOfThread() / 4 * 4 * kCount;
  for (int i = 0; i < kCount; ++i) {
    x[i] = (four[i] + four[kCount + i]) +
           (four[2 * kCount + i] + four[3 * kCount + i]);
  }
}
template <int kCount>
void LargestOfFours(float (&x)[kCount]) {
  const auto* all = static_cast<const float*>(ExchangeInWarp(x, sizeof(x)));
  const float* const four = all + LaneOfThread() / 4 * 4 * kCount;
  for (int i = 0; i < 4 * kCount; ++i) {
    x[i % kCount] = std::fmax(x[i % kCount], four[i]);
  }
}
inline void Fence() {}
inline int AtomicAdd(int* to, int n) {
  const int before = *to;
  *to += n;
  return before;
}
inline void AtomicAdd(uint64_t* to, uint64_t n) { *to += n; }
inline float LoadFresh(const float* from) { return *from; }

template <class T>
T* DynamicShared() {
  return static_cast<T*>(DynamicSharedMemory());
}

// ---- Tensor cores, copies beside other work: gpu.h ----

inline uint32_t PairOf(float x, float y) {
  return uint32_t{NarrowHalf(y)} << 16 | NarrowHalf(x);
}
inline float LowOf(uint32_t pair) { return WidenHalf(pair & 0xffff); }
inline float HighOf(uint32_t pair) { return WidenHalf(pair >> 16); }
inline uint32_t AddPairs(uint32_t a, uint32_t b) {
  return PairOf(LowOf(a) + LowOf(b), HighOf(a) + HighOf(b));
}
inline uint32_t FmaPairs(uint32_t a, uint32_t b, uint32_t c) {
  return PairOf(LowOf(a) * LowOf(b) + LowOf(c),
                HighOf(a) * HighOf(b) + HighOf(c));
}
void MultiplyAdd(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void LoadMatrices(const void* row, uint32_t (&out)[4]);
void LoadTransposed(const void* row, uint32_t (&out)[4]);

// Copied when they are waited for, so that a missing wait shows.
void CopyAsync(void* shared, const void* from);
void CommitCopies();
void WaitForCopiesBut(int left);
template <int kLeft>
void WaitForCopies() {
  WaitForCopiesBut(kLeft);
}

inline void WaitForPredecessor() {}
inline void Prefetch(const void*) {}
inline constexpr int kLineBytes = 128;

// ---- Launches ----

// Runs `thread` as every thread of every block.
void RunGrid(dim3 grid, dim3 block, size_t shared_bytes,
             absl::FunctionRef<void()> thread);

// Runs the work, or keeps it if the stream is being captured.
void Enqueue(Stream* stream, std::function<void()> work);

template <class... P, class... A>
void Launch(Stream* stream, dim3 grid, dim3 block, size_t shared_bytes,
            void (*kernel)(P...), A... args) {
  Enqueue(stream, [=] {
    RunGrid(grid, block, shared_bytes, [&] { kernel(args...); });
  });
}

}  // namespace millrace::backends::cuda::emulated

#endif  // MILLRACE_TESTS_TESTING_CUDA_EMULATOR_EMULATOR_H_
