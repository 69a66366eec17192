// Rotary angles in kernels: phases in 64-bit fixed point, as decoder/rope.h has
// them, of which the upper 32 bits are enough: 2^-32 of a turn is 1.5e-9
// radians.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_ROTATION_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_ROTATION_H_

#include <cstdint>

#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {

struct SineCosine {
  float sine, cosine;
};

// Of the angle at `position` of a pair that turns by `turn` a position. The
// phase is cut into quarter turns and a rest of at most an eighth, of which
// Taylor polynomials give sine and cosine within 1e-7.
__device__ inline SineCosine AngleAt(int64_t position, uint64_t turn) {
  const auto phase =
      static_cast<uint32_t>((static_cast<uint64_t>(position) * turn) >> 32);
  const uint32_t quarter = (phase + 0x20000000u) >> 30;
  const auto rest = static_cast<int32_t>(phase - (quarter << 30));
  const float x = static_cast<float>(rest) * 1.4629180792671596e-9f;
  const float z = x * x;
  float s = Fma(z, 2.7557319e-6f, -1.9841270e-4f);
  s = Fma(s, z, 8.3333333e-3f);
  s = Fma(s, z, -1.6666667e-1f);
  s = Fma(s * z, x, x);
  float c = Fma(z, 2.4801587e-5f, -1.3888889e-3f);
  c = Fma(c, z, 4.1666667e-2f);
  c = Fma(c, z, -0.5f);
  c = Fma(c, z, 1.0f);
  const bool odd = quarter & 1;
  const float sine = odd ? c : s, cosine = odd ? s : c;
  // Negative in the third and fourth quarter, in the second and third.
  return {quarter & 2 ? -sine : sine, (quarter + 1) & 2 ? -cosine : cosine};
}

// Turns a pair forwards by the angle.
__device__ inline void Turn(SineCosine angle, float& x, float& y) {
  const float turned_x = Fma(x, angle.cosine, -y * angle.sine);
  y = Fma(x, angle.sine, y * angle.cosine);
  x = turned_x;
}

// Number d of a vector turned by its pair's angle; `other` is the pair's other.
__device__ inline float TurnedNumber(SineCosine angle, int d, float number,
                                     float other) {
  const bool first = d % 2 == 0;
  float x = first ? number : other, y = first ? other : number;
  Turn(angle, x, y);
  return first ? x : y;
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_ROTATION_H_
