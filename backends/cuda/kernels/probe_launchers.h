// The functions of the table in probe.h.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_PROBE_LAUNCHERS_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_PROBE_LAUNCHERS_H_

#include "backends/cuda/kernels/probe.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

void LaunchReadProbe(Stream* stream, const ProbeArgs& args);
void LaunchMultiplyProbe(Stream* stream, const ProbeArgs& args);

inline constexpr Probes kProbes = {.read = LaunchReadProbe,
                                   .multiply = LaunchMultiplyProbe};

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_PROBE_LAUNCHERS_H_
