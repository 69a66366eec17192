// What a device can do at best, to measure kernels by: how fast it reads, and
// how fast its tensor cores multiply by the instruction that we use.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_PROBE_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_PROBE_H_

#include <cstdint>

namespace millrace::backends::cuda {

struct Stream;

struct ProbeArgs {
  int blocks;
  const uint8_t* data;  // read probe: 16-aligned
  int64_t bytes;        // read probe: a multiple of 16
  int steps;            // multiply probe: kProbeFlops each, in every block
  float* out;           // [blocks], so that the work is not left out
};

struct Probes {
  void (*read)(Stream*, const ProbeArgs&);
  void (*multiply)(Stream*, const ProbeArgs&);
};

inline constexpr int kProbeWarps = 8;
inline constexpr int kProbeSums = 8;  // independent, in each warp
inline constexpr int64_t kProbeFlops =
    int64_t{kProbeWarps} * kProbeSums * 2 * 16 * 8 * 16;

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_PROBE_H_
