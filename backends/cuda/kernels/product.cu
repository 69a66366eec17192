// out = W rms_norm(in), and what becomes of it: attention input, attention
// output, feed-forward in and out, and logits are this kernel.
//
//   grid     a block for 16 outputs (a row of tiles, weight_tiles.h) and up to
//   8
//            rows; of two matrices for a gate
//   threads  8 warps; each takes every eighth tile and has of it 2 outputs x 8
//            inputs a lane; lanes, then warps are added up in a fixed order
//   shared   the warps' sums: 4 KiB, 8 for a gate
//   bytes    the tiles once for 8 rows, 4 to 32 bits a weight; rows come from
//            the first-level cache (a row of 1,536 floats is 6 KiB)
//   flops    2 a weight and row, on the float units
//   bound    at few rows by reading weights, of which a warp has 320 bytes to
//            2 KiB for each tile under way; from about 8 rows on by the floats
//
// The norm of a row is computed by every block anew: 576 numbers from the cache
// cost less than another kernel. The scale of the norm is applied to the sum.
//
// A sum's order depends on the matrix alone, not on the number of rows: a row's
// results are the same bits in any batch. From 16 rows on the tensor cores take
// over (tensor_product.cu), unless results must be so.
#include "backends/cuda/kernels/lane_weights.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

// What the block's rows read: 8 inputs of a lane in a tile.
template <int kRows>
struct Inputs {
  const float* rows[kRows];
  const float* norm;

  __device__ void Load(int block, int lane, float (&x)[kRows][8]) const {
    const int first = block * kTileInputs + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float2 weight = {1, 1};
      if (norm != nullptr) {
        weight = *reinterpret_cast<const float2*>(norm + first + 8 * i);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float2 pair =
            *reinterpret_cast<const float2*>(rows[r] + first + 8 * i);
        x[r][2 * i] = pair.x * weight.x;
        x[r][2 * i + 1] = pair.y * weight.y;
      }
    }
  }
};

// sums[r] += the lane's part of the products of its two outputs.
template <int kRows, WeightType kType>
__device__ void AddTiles(const Inputs<kRows>& inputs, const uint8_t* tiles,
                         int blocks, float (&sums)[2 * kRows]) {
  const int lane = threadIdx.x % 32, output = lane / 4;
  for (int block = threadIdx.x / 32; block < blocks; block += kWarps) {
    const uint8_t* const tile = tiles + int64_t{block} * TileBytes(kType);
    LaneWeights weights;
    LoadLane<kType>(tile, lane, weights);
    float x[kRows][8];
    inputs.Load(block, lane, x);
    const float scales[2] = {ScaleOf<kType>(tile, output),
                             ScaleOf<kType>(tile, output + 8)};
    const float minima[2] = {MinimumOf<kType>(tile, output),
                             MinimumOf<kType>(tile, output + 8)};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float low = 0, high = 0, all = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        low = Fma(weights.low[i], x[r][i], low);
        high = Fma(weights.high[i], x[r][i], high);
        if constexpr (kType == WeightType::kQ4_1) all += x[r][i];
      }
      sums[2 * r] = Fma(scales[0], low, Fma(minima[0], all, sums[2 * r]));
      sums[2 * r + 1] =
          Fma(scales[1], high, Fma(minima[1], all, sums[2 * r + 1]));
    }
  }
}

template <int kRows>
__device__ void AddGroup(const Inputs<kRows>& inputs, const Matrix& matrix,
                         int group, float (&sums)[2 * kRows]) {
  const int blocks = matrix.blocks();
  const uint8_t* const tiles =
      matrix.tiles + int64_t{group} * blocks * TileBytes(matrix.type);
  switch (matrix.type) {
    case WeightType::kF32:
      return AddTiles<kRows, WeightType::kF32>(inputs, tiles, blocks, sums);
    case WeightType::kF16:
      return AddTiles<kRows, WeightType::kF16>(inputs, tiles, blocks, sums);
    case WeightType::kBF16:
      return AddTiles<kRows, WeightType::kBF16>(inputs, tiles, blocks, sums);
    case WeightType::kQ8_0:
      return AddTiles<kRows, WeightType::kQ8_0>(inputs, tiles, blocks, sums);
    case WeightType::kQ4_0:
      return AddTiles<kRows, WeightType::kQ4_0>(inputs, tiles, blocks, sums);
    case WeightType::kQ4_1:
      return AddTiles<kRows, WeightType::kQ4_1>(inputs, tiles, blocks, sums);
  }
}

// The sums of all lanes of the warp that have the same outputs, put into
// shared[warp][row][16].
template <int kRows>
__device__ void KeepSums(float (&sums)[2 * kRows],
                         float (*shared)[kRows][kTileOutputs]) {
  AddUpFours(sums);
  const int lane = threadIdx.x % 32;
  if (lane % 4 != 0) return;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    shared[threadIdx.x / 32][r][lane / 4] = sums[2 * r];
    shared[threadIdx.x / 32][r][lane / 4 + 8] = sums[2 * r + 1];
  }
}

// 1 / root mean square, warp w of row w.
__device__ float RmsScale(const float* row, int inputs, float epsilon) {
  float squares = 0;
  for (int i = threadIdx.x % 32; i < inputs; i += 32) {
    squares = Fma(row[i], row[i], squares);
  }
  squares = SumOfWarp(squares);
  return 1 / sqrtf(squares / static_cast<float>(inputs) + epsilon);
}

template <int kRows>
__device__ float Total(const float (*shared)[kRows][kTileOutputs], int row,
                       int output) {
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared[w][row][output];
  return total;
}

__device__ float Silu(float x) { return x / (1 + expf(-x)); }

template <int kRows>
__global__ void __launch_bounds__(kThreads) Product(ProductArgs args) {
  WaitForPredecessor();
  const StepHeader* const step = args.step;
  const int rows = args.wanted_rows ? step->num_logits : step->num_rows;
  const int first_row = blockIdx.y * kRows;
  if (first_row >= rows) return;
  int group = blockIdx.x, part = 0;
  if (args.end != ProductEnd::kGate) {
    while (group >= args.parts[part].matrix.groups()) {
      group -= args.parts[part++].matrix.groups();
    }
  }
  const Matrix& matrix = args.parts[part].matrix;

  Inputs<kRows> inputs;
  inputs.norm = args.norm;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    // Rows beyond the last are computed like it, and not kept.
    int row = first_row + r < rows ? first_row + r : rows - 1;
    if (args.wanted_rows) {
      row = ArrayAt<int32_t>(step, step->logits_rows)[row];
    }
    inputs.rows[r] = args.in.data + int64_t{row} * args.in.stride;
  }
  __shared__ float scales[kRows];
  const int warp = threadIdx.x / 32;
  if (warp < kRows) {
    float scale = 1;
    if (args.norm != nullptr) {
      int row = first_row + warp < rows ? first_row + warp : rows - 1;
      if (args.wanted_rows) {
        row = ArrayAt<int32_t>(step, step->logits_rows)[row];
      }
      scale = RmsScale(args.in.data + int64_t{row} * args.in.stride,
                       matrix.inputs, args.epsilon);
    }
    scales[warp] = scale;
  }

  __shared__ float shared[2][kWarps][kRows][kTileOutputs];
  float sums[2 * kRows] = {};
  AddGroup<kRows>(inputs, matrix, group, sums);
  KeepSums<kRows>(sums, shared[0]);
  if (args.end == ProductEnd::kGate) {
    float others[2 * kRows] = {};
    AddGroup<kRows>(inputs, args.parts[1].matrix, group, others);
    KeepSums<kRows>(others, shared[1]);
  }
  SyncBlock();
  LetSuccessorStart();

  const int r = threadIdx.x / kTileOutputs, o = threadIdx.x % kTileOutputs;
  const int row = first_row + r, output = group * kTileOutputs + o;
  if (r >= kRows || row >= rows || output >= matrix.outputs) return;
  const float product = Total<kRows>(shared[0], r, o) * scales[r];
  const Rows& out = args.parts[part].out;
  float* const to = out.data + int64_t{row} * out.stride + output;
  if (args.end == ProductEnd::kStore) {
    *to = product;
  } else if (args.end == ProductEnd::kAdd) {
    *to += product;
  } else {
    *to = Silu(product) * (Total<kRows>(shared[1], r, o) * scales[r]);
  }
}

template <int kRows>
void LaunchRows(Stream* stream, const ProductArgs& args) {
  int groups = 0;
  const int matrices = args.end == ProductEnd::kGate ? 1 : args.num_parts;
  for (int i = 0; i < matrices; ++i) groups += args.parts[i].matrix.groups();
  const int tiles = (args.max_rows + kRows - 1) / kRows;
  Launch(stream, dim3(groups, tiles), dim3(kThreads), 0, Product<kRows>, args);
}

bool ForTensorCores(const ProductArgs& args) {
  bool fit = args.halves.data != nullptr && args.max_rows >= kTensorRows;
  for (int i = 0; i < args.num_parts; ++i) {
    const Matrix& matrix = args.parts[i].matrix;
    fit &= matrix.fits_half && (args.end != ProductEnd::kGate ||
                                matrix.type == args.parts[0].matrix.type);
  }
  return fit;
}

}  // namespace

void LaunchProduct(Stream* stream, const ProductArgs& args) {
  if (ForTensorCores(args)) return LaunchTensorProduct(stream, args);
  if (args.max_rows <= 1) return LaunchRows<1>(stream, args);
  if (args.max_rows <= 2) return LaunchRows<2>(stream, args);
  if (args.max_rows <= 4) return LaunchRows<4>(stream, args);
  LaunchRows<8>(stream, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
