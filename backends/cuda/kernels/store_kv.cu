// The end of attention input where the product does not store keys and values
// itself (product.cu): keys are rotated at their text positions, keys and
// values rounded once and stored in the rows' slots.
//
//   grid     a warp for each row, KV head, and key or value
//   threads  lane l has the numbers l, l + 32, ... of the vector
//   bytes    4 read and 1 to 4 written a number: 2.3 KB a row of the default
//            model and layer
//   bound    by latency
#include "backends/cuda/kernels/kv_numbers.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/rotation.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kWarps = 4;

__global__ void StoreKv(ProductArgs args) {
  WaitForPredecessor();
  const KvMemory& kv = args.kv.memory;
  const int item = blockIdx.x * kWarps + threadIdx.x / 32;
  const int row = item / (2 * kv.num_kv_heads);
  if (row >= args.step->num_rows) return;
  const int head = item / 2 % kv.num_kv_heads;
  const bool key = item % 2 == 0;
  const StepRow& at = ArrayAt<StepRow>(args.step, args.step->rows)[row];
  const Rows& rows = args.parts[key ? 1 : 2].out;
  const float* const from =
      rows.data + int64_t{row} * rows.stride + head * kv.head_dim;
  const auto number = [&](int d) {
    if (!key) return from[d];
    return TurnedNumber(AngleAt(at.text_position, args.kv.turns[d / 2]), d,
                        from[d], from[d ^ 1]);
  };
  StoreVector(kv.Tile(args.kv.layer, head, at.block, at.value_block, key),
              kv.head_dim, kv.padded_dim, at.slot, number);
}

}  // namespace

void LaunchStoreKv(Stream* stream, const ProductArgs& args) {
  const int items = args.max_rows * 2 * args.kv.memory.num_kv_heads;
  Launch(stream, dim3((items + kWarps - 1) / kWarps), dim3(32 * kWarps), 0,
         StoreKv, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
