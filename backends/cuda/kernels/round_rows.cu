// halves = rms_norm(in) for the tensor cores: rounded to half precision, scaled
// by a power of two that is undone after the product, with the norm's scale.
//
//   grid     a block for each row
//   threads  4 warps; pairs of inputs, one after the other
//   bytes    4 an input read twice (the second time from the cache), 2 written
//   bound    by latency: small beside the product that follows
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

// 2^14 by exponent: what the largest input of a row is scaled to. A product of
// two halves is exact as a float, so nothing overflows.
constexpr int kLargestExponent = 127 + 14;

struct RowScale {
  float up;    // what inputs are multiplied by: a power of two
  float down;  // 1 / up
};
__device__ inline RowScale ScaleFor(float largest) {
  const auto exponent = static_cast<int>(BitsOf(largest) >> 23 & 255);
  const auto bounded = static_cast<int>(Least(Most(exponent, 15), 254));
  const int shift = kLargestExponent - bounded;
  return {FloatOf(static_cast<uint32_t>(127 + shift) << 23),
          FloatOf(static_cast<uint32_t>(127 - shift) << 23)};
}

__device__ inline float2 Normed(const float* in, const float* norm, int pair) {
  float2 x = reinterpret_cast<const float2*>(in)[pair];
  if (norm != nullptr) {
    const float2 weight = reinterpret_cast<const float2*>(norm)[pair];
    x.x *= weight.x;
    x.y *= weight.y;
  }
  return x;
}

__global__ void __launch_bounds__(kThreads) RoundRows(ProductArgs args) {
  WaitForPredecessor();
  const StepHeader* const step = args.step;
  const int rows = args.wanted_rows ? step->num_logits : step->num_rows;
  const int row = blockIdx.x;
  if (row >= rows) return;
  const int from =
      args.wanted_rows ? ArrayAt<int32_t>(step, step->logits_rows)[row] : row;
  const float* const in = args.in.data + int64_t{from} * args.in.stride;
  const int pairs = args.in.stride / 2;

  float squares = 0, largest = 0;
  for (int i = threadIdx.x; i < pairs; i += kThreads) {
    const float2 x = reinterpret_cast<const float2*>(in)[i];
    squares = Fma(x.x, x.x, Fma(x.y, x.y, squares));
    const float2 y = Normed(in, args.norm, i);
    largest = fmaxf(largest, fmaxf(fabsf(y.x), fabsf(y.y)));
  }
  __shared__ float of_warps[2][kWarps];
  squares = SumOfWarp(squares);
  largest = LargestOfWarp(largest);
  if (threadIdx.x % 32 == 0) {
    of_warps[0][threadIdx.x / 32] = squares;
    of_warps[1][threadIdx.x / 32] = largest;
  }
  SyncBlock();
  squares = largest = 0;
  for (int w = 0; w < kWarps; ++w) {
    squares += of_warps[0][w];
    largest = fmaxf(largest, of_warps[1][w]);
  }

  const RowScale scale = ScaleFor(largest);
  auto* const to = reinterpret_cast<uint32_t*>(args.halves.data +
                                               int64_t{row} * args.in.stride);
  for (int i = threadIdx.x; i < pairs; i += kThreads) {
    const float2 x = Normed(in, args.norm, i);
    to[i] = PairOf(x.x * scale.up, x.y * scale.up);
  }
  if (threadIdx.x != 0) return;
  const auto inputs = static_cast<float>(args.parts[0].matrix.inputs);
  args.halves.factors[row] =
      args.norm == nullptr
          ? scale.down
          : scale.down / sqrtf(squares / inputs + args.epsilon);
}

}  // namespace

void LaunchRoundRows(Stream* stream, const ProductArgs& args) {
  Launch(stream, dim3(args.max_rows), dim3(kThreads), 0, RoundRows, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
