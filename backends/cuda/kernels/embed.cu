// residual = embedding rows of the token ids.
//
//   grid     a block for each row
//   threads  an input each, one after the other
//   bytes    a row of weights read from scattered tiles (each 16 outputs, of
//            which one is wanted: sectors of 32 bytes for 4 to 8), a row of
//            floats written
//   bound    by latency: 576 floats
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kThreads = 128;

__device__ float WeightAt(const Matrix& matrix, int output, int input) {
  const TilePlace place =
      PlaceInTile(output % kTileOutputs, input % kTileInputs);
  const int64_t tile_index =
      int64_t{output / kTileOutputs} * matrix.blocks() + input / kTileInputs;
  const uint8_t* const tile =
      matrix.tiles + tile_index * TileBytes(matrix.type);
  const uint8_t* const at = tile + TileByte(matrix.type, place);
  const auto half = [&](int byte) {
    return WidenHalf(*reinterpret_cast<const uint16_t*>(tile + byte));
  };
  const int nibble = IsHighNibble(place) ? *at >> 4 : *at & 15;
  const int row = output % kTileOutputs;
  switch (matrix.type) {
    case WeightType::kQ4_0:
      return half(ScaleByte(matrix.type, row)) * (nibble - 8);
    case WeightType::kQ4_1:
      return Fma(half(ScaleByte(matrix.type, row)), nibble,
                 half(MinimumByte(matrix.type, row)));
    case WeightType::kQ8_0:
      return half(ScaleByte(matrix.type, row)) * static_cast<int8_t>(*at);
    case WeightType::kF16:
      return WidenHalf(*reinterpret_cast<const uint16_t*>(at));
    case WeightType::kBF16:
      return WidenBfloat(*reinterpret_cast<const uint16_t*>(at));
    case WeightType::kF32:
      break;
  }
  return *reinterpret_cast<const float*>(at);
}

__device__ int32_t TokenOf(const StepRow& row, const int32_t* picked) {
  if (row.token_id >= 0) return row.token_id;
  const int32_t id = picked[-1 - row.token_id];
  return id < 0 ? 0 : id;  // logits that were not finite
}

__global__ void Embed(EmbedArgs args) {
  WaitForPredecessor();
  const int row = blockIdx.x;
  if (row >= args.step->num_rows) return;
  const int32_t token =
      TokenOf(ArrayAt<StepRow>(args.step, args.step->rows)[row], args.picked);
  float* const out = args.residual.data + int64_t{row} * args.residual.stride;
  for (int i = threadIdx.x; i < args.embedding.inputs; i += kThreads) {
    out[i] = WeightAt(args.embedding, token, i);
  }
}

}  // namespace

void LaunchEmbed(Stream* stream, int max_rows, const EmbedArgs& args) {
  Launch(stream, dim3(max_rows), dim3(kThreads), 0, Embed, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
