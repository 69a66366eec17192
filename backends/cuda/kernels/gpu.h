// target.h on a GPU. The only file with CUDA's own intrinsics.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_GPU_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_GPU_H_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "backends/cuda/kernels/kernels.h"

#define MILLRACE_CUDA_CODE gpu

namespace millrace::backends::cuda::gpu {

// ---- Number formats; rounded to nearest, ties to even ----

__device__ inline float WidenHalf(uint16_t x) {
  return __half2float(__ushort_as_half(x));
}
__device__ inline uint16_t NarrowHalf(float x) {
  return __half_as_ushort(__float2half_rn(x));
}
__device__ inline float WidenBfloat(uint16_t x) {
  return __uint_as_float(static_cast<uint32_t>(x) << 16);
}
__device__ inline uint16_t NarrowBfloat(float x) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
__device__ inline uint32_t BitsOf(float x) { return __float_as_uint(x); }
__device__ inline float FloatOf(uint32_t bits) { return __uint_as_float(bits); }

// Bytes of a (0 .. 3) and b (4 .. 7): byte i of the result is the one that the
// selector's four bits i name.
__device__ inline uint32_t ChooseBytes(uint32_t a, uint32_t b,
                                       uint32_t selector) {
  return __byte_perm(a, b, selector);
}

// a * b + c, rounded once.
__device__ inline float Fma(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}

// ---- Threads ----

// The sum, and the largest, of what all lanes of the warp bring; all must.
__device__ inline float SumOfWarp(float x) {
  for (int bits = 16; bits > 0; bits /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, bits);
  }
  return x;
}
__device__ inline float LargestOfWarp(float x) {
  for (int bits = 16; bits > 0; bits /= 2) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
  }
  return x;
}
// The same sum of each number over lanes 4 n .. 4 n + 3.
template <int kCount>
__device__ inline void AddUpFours(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    x[i] += __shfl_xor_sync(0xffffffffu, x[i], 1);
    x[i] += __shfl_xor_sync(0xffffffffu, x[i], 2);
  }
}
// The largest of each number over lanes 4 n .. 4 n + 3.
template <int kCount>
__device__ inline void LargestOfFours(float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    x[i] = fmaxf(x[i], __shfl_xor_sync(0xffffffffu, x[i], 1));
    x[i] = fmaxf(x[i], __shfl_xor_sync(0xffffffffu, x[i], 2));
  }
}
__device__ inline void SyncWarp() { __syncwarp(); }
__device__ inline void SyncBlock() { __syncthreads(); }
// What was written before is seen by who sees what is written after.
__device__ inline void Fence() { __threadfence(); }
__device__ inline int AtomicAdd(int* to, int n) { return atomicAdd(to, n); }
__device__ inline void AtomicAdd(uint64_t* to, uint64_t n) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to),
            static_cast<unsigned long long>(n));
}
// A number that another block may have written during this launch.
__device__ inline float LoadFresh(const float* from) { return __ldcg(from); }

// The block's shared memory of the size that it was launched with, 16-aligned.
template <class T>
__device__ inline T* DynamicShared() {
  extern __shared__ __align__(16) unsigned char shared[];
  return reinterpret_cast<T*>(shared);
}

// ---- Tensor cores: two numbers of half precision in a register ----

// {x, y}, rounded, x in the lower half; a + b; a * b + c, rounded once.
__device__ inline uint32_t PairOf(float x, float y) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
  return pair;
}
__device__ inline uint32_t AddPairs(uint32_t a, uint32_t b) {
  uint32_t pair;
  asm("add.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}
__device__ inline uint32_t FmaPairs(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t pair;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
  return pair;
}

// c += a * b by the warp, with the fragments of m16n8k16 (PTX ISA): a 16 x 16,
// b 16 x 8 of half precision, c 16 x 8.
__device__ inline void MultiplyAdd(float (&c)[4], const uint32_t (&a)[4],
                                   const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Four matrices of 8 x 8 numbers of 16 bits from shared memory, by the warp:
// lane 8 i + j brings the address of row j of matrix i, 16-aligned, and lane
// 4 j + t gets of each row j its numbers 2 t and 2 t + 1.
__device__ inline void LoadMatrices(const void* row, uint32_t (&out)[4]) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
      : "r"(SharedAddress(row))
      : "memory");
}

// The same of the matrices' transposes: numbers j of rows 2 t and 2 t + 1.
__device__ inline void LoadTransposed(const void* row, uint32_t (&out)[4]) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
      : "r"(SharedAddress(row))
      : "memory");
}

// ---- Copies into shared memory that go on beside other work ----

// 16 bytes, 16-aligned.
__device__ inline void CopyAsync(void* shared, const void* from) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)),
      "l"(__cvta_generic_to_global(from))
      : "memory");
}
// Makes a group of the thread's copies since the last one.
__device__ inline void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for all groups of the thread but the last kLeft. Others see what was
// copied after a barrier.
template <int kLeft>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// ---- Kernels that follow one another ----

// A kernel may start while the one before still runs. This waits until that one
// has ended and what it wrote can be read. When all blocks have come here, the
// kernel that follows may start, up to its own WaitForPredecessor.
__device__ inline void WaitForPredecessor() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}
// Brings the line of 128 bytes into the second-level cache. No kernel of a
// step may write what it holds.
__device__ inline void Prefetch(const void* line) {
  asm volatile(
      "prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(line)));
}
inline constexpr int kLineBytes = 128;

// ---- Launches ----

// Puts a kernel into the stream's queue, to be started as early as
// WaitForPredecessor allows. An error stays with the device.
template <class... P, class... A>
void Launch(Stream* stream, dim3 grid, dim3 block, size_t shared_bytes,
            void (*kernel)(P...), A... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  constexpr size_t kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  }
  // Code that was compiled for older GPUs does not wait for its predecessor.
  cudaFuncAttributes code = {};
  cudaFuncGetAttributes(&code, kernel);
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = reinterpret_cast<cudaStream_t>(stream);
  config.attrs = &early;
  config.numAttrs = code.ptxVersion >= 90 ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
}

}  // namespace millrace::backends::cuda::gpu

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_GPU_H_
