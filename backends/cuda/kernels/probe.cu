// The two probes of probe.h.
//
//   read      a block takes every n-th 4 KiB, a thread 16 bytes of it; bound by
//             reading memory
//   multiply  8 warps a block, each with 8 chains of m16n8k16 that wait for
//             themselves alone; bound by the tensor cores
#include "backends/cuda/kernels/probe_launchers.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kThreads = 32 * kProbeWarps;

__global__ void __launch_bounds__(kThreads) ReadProbe(ProbeArgs args) {
  WaitForPredecessor();
  const auto* const data = reinterpret_cast<const uint4*>(args.data);
  const int64_t step = int64_t{args.blocks} * kThreads;
  uint32_t sum = 0;
#pragma unroll 8
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
       i < args.bytes / 16; i += step) {
    const uint4 words = data[i];
    sum ^= words.x ^ words.y ^ words.z ^ words.w;
  }
  const float all = SumOfWarp(static_cast<float>(sum));
  if (threadIdx.x == 0) args.out[blockIdx.x] = all;
}

__global__ void __launch_bounds__(kThreads) MultiplyProbe(ProbeArgs args) {
  WaitForPredecessor();
  const uint32_t one = PairOf(1, 1);
  const uint32_t a[4] = {one, one, one, one};
  const uint32_t b[2] = {one, one};
  float sums[kProbeSums][4] = {};
  for (int i = 0; i < args.steps; ++i) {
#pragma unroll
    for (int s = 0; s < kProbeSums; ++s) MultiplyAdd(sums[s], a, b);
  }
  float total = 0;
  for (int s = 0; s < kProbeSums; ++s) total += sums[s][0];
  if (threadIdx.x == 0) args.out[blockIdx.x] = total;
}

}  // namespace

void LaunchReadProbe(Stream* stream, const ProbeArgs& args) {
  Launch(stream, dim3(args.blocks), dim3(kThreads), 0, ReadProbe, args);
}

void LaunchMultiplyProbe(Stream* stream, const ProbeArgs& args) {
  Launch(stream, dim3(args.blocks), dim3(kThreads), 0, MultiplyProbe, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
