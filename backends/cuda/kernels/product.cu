// out = W rms_norm(in), and what becomes of it: attention input, attention
// output, feed-forward in and out, and logits are this kernel.
//
//   grid     a block for 16 outputs (a row of tiles, weight_tiles.h) and 8
//            rows at most; of two matrices for a gate
//   threads  8 warps; each takes every eighth tile and has of it 2 outputs x 8
//            inputs a lane; lanes, then warps are added up in a fixed order
//   shared   the warps' sums: 8 KiB for 8 rows
//   bytes    the tiles once for 8 rows, 4 to 32 bits a weight; rows come from
//            the first-level cache (a row of 1,536 floats is 6 KiB)
//   flops    2 a weight and row, on the float units
//   bound    at few rows by reading weights, of which a warp has 288 bytes to
//            2 KiB for each tile under way; from about 8 rows on by the floats
//
// The norm of a row is computed by every block anew: 576 numbers from the cache
// cost less than another kernel. The scale of the norm is applied to the sum.
// Keys and values are stored by this kernel, too, but for 8-bit numbers, whose
// scale takes the whole vector (store_kv.cu).
//
// With few rows a step is a chain of latencies. So weights are sent for (into
// the second-level cache) while the kernel before still runs: up to 64 KiB of a
// block. To keep an H100's memory busy some 20 KiB of a multiprocessor have to
// be under way; of 4 bits a weight the registers have half of that.
//
// A sum's order depends on the matrix alone, not on the number of rows: a row's
// results are the same bits in any batch. From 16 rows on the tensor cores take
// over (tensor_product.cu), unless results must be so.
#include "backends/cuda/kernels/kv_numbers.h"
#include "backends/cuda/kernels/lane_weights.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/rotation.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

// What the block's rows read.
template <int kRows>
struct Inputs {
  const float* rows[kRows];
  const float* norm;

  // The 8 inputs of a lane in a tile, times the norm's weights if it is there.
  template <bool kNormed>
  __device__ void Load(int block, int lane, float (&x)[kRows][8]) const {
    const int first = block * kTileInputs + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float2 weight = {1, 1};
      if constexpr (kNormed) {
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

// sums[r] += the lane's part of the products of its two outputs. A tile is sent
// for while the one before is multiplied.
template <int kRows, WeightType kType, bool kNormed>
__device__ void AddTiles(const Inputs<kRows>& inputs, const uint8_t* tiles,
                         int blocks, float (&sums)[2 * kRows]) {
  using Weights = LaneWeights<kType>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (warp >= blocks) return;
  // PutNibbles takes this and constants besides, and its instruction has room
  // for one: nothing is added, but so the compiler keeps the number in a
  // register and not the 16 constants.
  const uint32_t bits_of_128 = kBitsOf128 + (blocks < 0);
  tiles += int64_t{warp} * TileBytes(kType);
  LaneWords<kType> next;
  next.Load(tiles, lane);
  for (int block = warp; block < blocks; block += kWarps) {
    const Weights weights(next, bits_of_128);
    tiles += kWarps * TileBytes(kType);
    if (block + kWarps < blocks) next.Load(tiles, lane);
    float x[kRows][8];
    inputs.template Load<kNormed>(block, lane, x);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float low = 0, high = 0, all = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        low = Fma(weights.low[i], x[r][i], low);
        high = Fma(weights.high[i], x[r][i], high);
        if constexpr (Weights::kOffset) all += x[r][i];
      }
      float& sum_low = sums[2 * r];
      float& sum_high = sums[2 * r + 1];
      if constexpr (Weights::kOffset) {
        sum_low = Fma(weights.offsets[0], all, sum_low);
        sum_high = Fma(weights.offsets[1], all, sum_high);
      }
      sum_low = Fma(weights.scales[0], low, sum_low);
      sum_high = Fma(weights.scales[1], high, sum_high);
    }
  }
}

template <int kRows, bool kNormed>
__device__ void AddGroup(const Inputs<kRows>& inputs, const Matrix& matrix,
                         int group, float (&sums)[2 * kRows]) {
  const int blocks = matrix.blocks();
  const uint8_t* const tiles =
      matrix.tiles + int64_t{group} * blocks * TileBytes(matrix.type);
  const auto add = [&]<WeightType kType>() {
    AddTiles<kRows, kType, kNormed>(inputs, tiles, blocks, sums);
  };
  switch (matrix.type) {
    case WeightType::kF32:
      return add.template operator()<WeightType::kF32>();
    case WeightType::kF16:
      return add.template operator()<WeightType::kF16>();
    case WeightType::kBF16:
      return add.template operator()<WeightType::kBF16>();
    case WeightType::kQ8_0:
      return add.template operator()<WeightType::kQ8_0>();
    case WeightType::kQ4_0:
      return add.template operator()<WeightType::kQ4_0>();
    case WeightType::kQ4_1:
      return add.template operator()<WeightType::kQ4_1>();
  }
}

// shared[warp][row][16] = the warp's sums of the group's outputs.
template <int kRows>
__device__ void KeepSums(const Inputs<kRows>& inputs, const Matrix& matrix,
                         int group, float (*shared)[kRows][kTileOutputs]) {
  float sums[2 * kRows] = {};
  if (inputs.norm != nullptr) {
    AddGroup<kRows, true>(inputs, matrix, group, sums);
  } else {
    AddGroup<kRows, false>(inputs, matrix, group, sums);
  }
  AddUpFours(sums);
  const int lane = threadIdx.x % 32;
  if (lane % 4 != 0) return;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    shared[threadIdx.x / 32][r][lane / 4] = sums[2 * r];
    shared[threadIdx.x / 32][r][lane / 4 + 8] = sums[2 * r + 1];
  }
}

// shared[warp][row] = the sum of squares of the warp's part of the row.
template <int kRows>
__device__ void KeepSquares(const Inputs<kRows>& inputs, int width,
                            float (*shared)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += kThreads) {
      squares = Fma(inputs.rows[r][i], inputs.rows[r][i], squares);
    }
    squares = SumOfWarp(squares);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32][r] = squares;
  }
}

// 1 / root mean square.
template <int kRows>
__device__ float ScaleOfRow(const float (*squares)[kRows], int row, int width,
                            float epsilon) {
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += squares[w][row];
  return 1 / sqrtf(total / static_cast<float>(width) + epsilon);
}

template <int kRows>
__device__ float Total(const float (*shared)[kRows][kTileOutputs], int row,
                       int output) {
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += shared[w][row][output];
  return total;
}

// The first of the group's weights, which no kernel writes: some lines a
// thread.
__device__ void PrefetchGroup(const Matrix& matrix, int group, int lines) {
  const int64_t bytes = int64_t{matrix.blocks()} * TileBytes(matrix.type);
  for (int i = 0; i < lines; ++i) {
    const int64_t line = (i * kThreads + int64_t{threadIdx.x}) * kLineBytes;
    if (line < bytes) Prefetch(matrix.tiles + group * bytes + line);
  }
}

__device__ float Silu(float x) { return x / (1 + expf(-x)); }

// Puts number `output` of a key or value into the row's slot. `other` is the
// product that it makes a pair with.
__device__ void StoreNumberOf(const ProductArgs& args, bool key, int row,
                              int output, float product, float other) {
  const KvMemory& kv = args.kv.memory;
  const StepRow& at = ArrayAt<StepRow>(args.step, args.step->rows)[row];
  const int head = output / kv.head_dim, d = output % kv.head_dim;
  if (key) {
    product = TurnedNumber(AngleAt(at.text_position, args.kv.turns[d / 2]), d,
                           product, other);
  }
  StoreNumber(kv.Tile(args.kv.layer, head, at.block, at.value_block, key),
              kv.padded_dim, at.slot, d, product);
}

template <int kRows>
__global__ void __launch_bounds__(kThreads, kRows == 1 ? 4 : 2)
    Product(ProductArgs args) {
  int group = blockIdx.x, part = 0;
  if (args.end != ProductEnd::kGate) {
    while (group >= args.parts[part].matrix.groups()) {
      group -= args.parts[part++].matrix.groups();
    }
  }
  const Matrix& matrix = args.parts[part].matrix;
  if (blockIdx.y == 0) {
    const bool gate = args.end == ProductEnd::kGate;
    PrefetchGroup(matrix, group, gate ? 1 : 2);
    if (gate) PrefetchGroup(args.parts[1].matrix, group, 1);
  }
  WaitForPredecessor();

  const StepHeader* const step = args.step;
  const int rows = args.wanted_rows ? step->num_logits : step->num_rows;
  const int first_row = blockIdx.y * kRows;
  if (first_row >= rows) return;
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

  __shared__ float shared[2][kWarps][kRows][kTileOutputs];
  __shared__ float squares[kWarps][kRows];
  KeepSums(inputs, matrix, group, shared[0]);
  if (args.end == ProductEnd::kGate) {
    KeepSums(inputs, args.parts[1].matrix, group, shared[1]);
  }
  if (args.norm != nullptr) KeepSquares(inputs, matrix.inputs, squares);
  SyncBlock();

  const int r = threadIdx.x / kTileOutputs, o = threadIdx.x % kTileOutputs;
  const int row = first_row + r, output = group * kTileOutputs + o;
  if (r >= kRows || row >= rows || output >= matrix.outputs) return;
  const float scale = args.norm == nullptr
                          ? 1
                          : ScaleOfRow(squares, r, matrix.inputs, args.epsilon);
  const float product = Total<kRows>(shared[0], r, o) * scale;
  if (args.end == ProductEnd::kStoreKv && part > 0) {
    const float other = Total<kRows>(shared[0], r, o ^ 1) * scale;
    return StoreNumberOf(args, part == 1, row, output, product, other);
  }
  const Rows& out = args.parts[part].out;
  float* const to = out.data + int64_t{row} * out.stride + output;
  if (args.end == ProductEnd::kAdd) {
    *to += product;
  } else if (args.end == ProductEnd::kGate) {
    *to = Silu(product) * (Total<kRows>(shared[1], r, o) * scale);
  } else {
    *to = product;
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
  const bool tensor = ForTensorCores(args);
  if (args.end == ProductEnd::kStoreKv &&
      (tensor || args.kv.memory.dtype == KvDtype::kInt8)) {
    ProductArgs product = args;
    product.end = ProductEnd::kStore;
    LaunchProduct(stream, product);
    return LaunchStoreKv(stream, args);
  }
  if (tensor) return LaunchTensorProduct(stream, args);
  if (args.max_rows <= 1) return LaunchRows<1>(stream, args);
  if (args.max_rows <= 2) return LaunchRows<2>(stream, args);
  if (args.max_rows <= 4) return LaunchRows<4>(stream, args);
  LaunchRows<8>(stream, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
