// What kernels take from what they are compiled for: threads, shared memory,
// shuffles, number formats, launches. Compiled by nvcc they are the GPU's; by
// any other compiler they are emulated on the CPU, so that the kernels
// themselves are tested where there is no GPU.
//
// A kernel file is written once, within `namespace MILLRACE_CUDA_CODE`, and
// both forms of it can be linked into one program.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_TARGET_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_TARGET_H_

#ifdef __CUDACC__
#include "backends/cuda/kernels/gpu.h"
#else
#include "tests/testing/cuda_emulator/emulator.h"
#endif

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_TARGET_H_
