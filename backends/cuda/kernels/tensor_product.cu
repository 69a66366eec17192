// The products of product.cu for 16 rows and more, on the tensor cores: rows
// are rounded to half precision (round_rows.cu), weights become such numbers on
// their way into registers, sums are floats.
//
//   grid     x: blocks of rows, so that those which share weights run together;
//            y: blocks of outputs. Two shapes:
//              wide    128 outputs x 128 rows; 2 x 2 warps of 64 x 64
//              narrow  32 outputs x 32 rows; 4 warps, each of every fourth tile
//   threads  4 warps
//   shared   4 stages: a tile of weights for each 16 outputs (weight_tiles.h)
//            as it is stored, and 32 inputs of every row, swizzled: wide 48 KiB
//            for 8 bits a weight, 64 for 16, 96 for 32. Three stages are on
//            their way (cp.async) while one is multiplied
//   bytes    wide: weights once for 128 rows, rows once for 128 outputs
//   flops    2 a weight and row; twice that for weights of 32 bits
//   bound    narrow: by reading weights; wide: by the tensor cores, 2 MFLOP for
//            16 KiB a stage. A warp reads 2 KiB of weights and 2 KiB of rows
//            for 32 instructions of 4,096 FLOP: half of what shared memory can
//            give
//
// mma.sync reaches about 60 to 65 % of an H100's peak at the very best, all of
// an A100's; the rest takes wgmma, which has no code here.
//
// Rounding: a row is scaled by a power of two so that its largest input is just
// below 2^15, and keeps 11 bits of each. Weights of 16 bits are exact, those of
// 32 bits are taken apart into two numbers, quantised ones are rounded once
// more when they are scaled. A row's bits depend on which shape is taken, and
// not on what else is in the batch.
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"
#include "backends/cuda/kernels/tensor_weights.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

constexpr int kStages = 4;
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kPieceBytes = 16;                // of one cp.async
constexpr int kRowPieces = kTileInputs / 8;    // of a row in a tile
constexpr int kHalvesBytes = kTileInputs * 2;  // of a row in a tile

// How a block is divided: warps over outputs, rows and inputs, and what a warp
// has: tiles of 16 outputs, of 8 rows.
template <int kOutputWarps_, int kRowWarps_, int kInputWarps_,
          int kOutputTiles_, int kRowTiles_>
struct Shape {
  static constexpr int kRowWarps = kRowWarps_;
  static constexpr int kInputWarps = kInputWarps_;
  static constexpr int kOutputTiles = kOutputTiles_;
  static constexpr int kRowTiles = kRowTiles_;
  static constexpr int kGroups = kOutputWarps_ * kOutputTiles;
  static constexpr int kRows = kRowWarps * kRowTiles * 8;
  static_assert(kOutputWarps_ * kRowWarps * kInputWarps == kWarps);
};
using Wide = Shape<2, 2, 1, 4, 8>;
using Narrow = Shape<1, 1, 4, 2, 4>;

template <class S>
using Sums = float[S::kOutputTiles][S::kRowTiles][4];

// A stage: weights [group][input tile], then rows [input tile][row][32].
template <class S, WeightType kType>
struct Stage {
  static constexpr int kRunBytes = S::kInputWarps * TileBytes(kType);
  static constexpr int kWeightBytes = S::kGroups * kRunBytes;
  static constexpr int kBytes =
      kWeightBytes + S::kInputWarps * S::kRows * kHalvesBytes;

  // Eight rows' pieces of the same inputs lie in 32 different banks.
  __device__ static int RowPiece(int tile, int row, int piece) {
    return kWeightBytes + (tile * S::kRows + row) * kHalvesBytes +
           (piece ^ (row / 2 % kRowPieces)) * kPieceBytes;
  }
};

// Where the block's group number `i` of all comes from: of a gate, groups of
// both matrices take turns.
struct GroupPlace {
  int part, group;
};
__device__ inline GroupPlace PlaceOfGroup(const ProductArgs& args, int i) {
  if (args.end == ProductEnd::kGate) return {i % 2, i / 2};
  int part = 0;
  while (part < args.num_parts - 1 && i >= args.parts[part].matrix.groups()) {
    i -= args.parts[part++].matrix.groups();
  }
  return {part, i};
}

// What a block is about.
template <class S, WeightType kType>
struct Work {
  const ProductArgs& args;
  int rows, first_row, first_group, blocks;
  const uint8_t* const* groups;  // [kGroups], in shared memory
  uint8_t* memory;               // [kStages]

  __device__ uint8_t* StageOf(int n) const {
    return memory + n % kStages * Stage<S, kType>::kBytes;
  }
  __device__ int stages() const {
    return (blocks + S::kInputWarps - 1) / S::kInputWarps;
  }

  // Sends for stage n. What is beyond the matrix is left as it is.
  __device__ void Fetch(int n) const {
    uint8_t* const to = StageOf(n);
    const int tiles = static_cast<int>(
        Least(S::kInputWarps, blocks - int64_t{n} * S::kInputWarps));
    constexpr int kRun = Stage<S, kType>::kRunBytes / kPieceBytes;
    const int run = tiles * TileBytes(kType) / kPieceBytes;
    for (int i = threadIdx.x; i < S::kGroups * kRun; i += kThreads) {
      const int group = i / kRun, piece = i % kRun;
      if (piece >= run) continue;
      CopyAsync(to + i * kPieceBytes,
                groups[group] + int64_t{n} * Stage<S, kType>::kRunBytes +
                    piece * kPieceBytes);
    }
    constexpr int kPieces = S::kInputWarps * kRowPieces;
    for (int i = threadIdx.x; i < S::kRows * kPieces; i += kThreads) {
      const int r = i / kPieces, piece = i % kPieces;
      if (piece >= tiles * kRowPieces) continue;
      // Rows beyond the last are computed like it, and not kept.
      const int row = first_row + r < rows ? first_row + r : rows - 1;
      CopyAsync(to + Stage<S, kType>::RowPiece(piece / kRowPieces, r,
                                               piece % kRowPieces),
                args.halves.data + int64_t{row} * args.in.stride +
                    n * S::kInputWarps * kTileInputs + piece * 8);
    }
  }
};

// A warp's place in the block.
template <class S>
struct WarpPlace {
  int input, row_tile, output_tile;

  __device__ explicit WarpPlace(int warp)
      : input(warp % S::kInputWarps),
        row_tile(warp / S::kInputWarps % S::kRowWarps * S::kRowTiles),
        output_tile(warp / S::kInputWarps / S::kRowWarps * S::kOutputTiles) {}
};

// The warp's rows as operands B: [16 inputs][8 rows] a pair of registers.
template <class S, WeightType kType>
__device__ inline void LoadRows(const uint8_t* stage, const WarpPlace<S>& place,
                                uint32_t (&rows)[S::kRowTiles][2][2]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < S::kRowTiles; ++r) {
    // Lane 8 i + j says where row j of the quarter i of the inputs is.
    const int row = (place.row_tile + r) * 8 + lane % 8;
    uint32_t quarters[4];
    LoadMatrices(stage + Stage<S, kType>::RowPiece(place.input, row, lane / 8),
                 quarters);
    rows[r][0][0] = quarters[0], rows[r][0][1] = quarters[1];
    rows[r][1][0] = quarters[2], rows[r][1][1] = quarters[3];
  }
}

// sums += weights * rows, of one stage.
template <class S, WeightType kType>
__device__ inline void MultiplyStage(const uint8_t* stage,
                                     const WarpPlace<S>& place, Sums<S>& sums) {
  uint32_t rows[S::kRowTiles][2][2];
  LoadRows<S, kType>(stage, place, rows);
#pragma unroll
  for (int o = 0; o < S::kOutputTiles; ++o) {
    TensorWeights<kType> weights;
    weights.Load(stage + (place.output_tile + o) * Stage<S, kType>::kRunBytes +
                     place.input * TileBytes(kType),
                 threadIdx.x % 32);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int part = 0; part < TensorWeights<kType>::kParts; ++part) {
#pragma unroll
        for (int r = 0; r < S::kRowTiles; ++r) {
          MultiplyAdd(sums[o][r], weights.registers[part][half], rows[r][half]);
        }
      }
    }
  }
}

// sums = those of all warps that share the outputs and rows, in their order;
// each warp has in the end the row tiles that are its own.
template <class S>
__device__ inline void AddUpWarps(float* shared, const WarpPlace<S>& place,
                                  Sums<S>& sums) {
  constexpr int kNumbers = S::kOutputTiles * S::kRowTiles * 4;
  constexpr int kTeam = S::kInputWarps * kNumbers * 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float* const team = shared + warp / S::kInputWarps * kTeam;
  SyncBlock();
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) {
    team[(place.input * kNumbers + i) * 32 + lane] =
        sums[i / 4 / S::kRowTiles][i / 4 % S::kRowTiles][i % 4];
  }
  SyncBlock();
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < S::kInputWarps; ++w) {
      total += team[(w * kNumbers + i) * 32 + lane];
    }
    sums[i / 4 / S::kRowTiles][i / 4 % S::kRowTiles][i % 4] = total;
  }
}

__device__ inline float Silu(float x) { return x / (1 + expf(-x)); }

// Writes a tile of 16 outputs x 8 rows; `others` are those of the gate's second
// matrix.
template <class S, WeightType kType>
__device__ inline void Keep(const Work<S, kType>& work, int group_index,
                            int row_tile, const float (&sums)[4],
                            const float (&others)[4]) {
  const ProductArgs& args = work.args;
  const GroupPlace place = PlaceOfGroup(args, work.first_group + group_index);
  const auto& part = args.parts[place.part];
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = work.first_row + row_tile * 8 + lane % 4 * 2 + i % 2;
    const int output = place.group * kTileOutputs + lane / 4 + i / 2 * 8;
    if (row >= work.rows || output >= part.matrix.outputs) continue;
    const float factor = args.halves.factors[row];
    float* const to = part.out.data + int64_t{row} * part.out.stride + output;
    const float product = sums[i] * factor;
    if (args.end == ProductEnd::kStore) {
      *to = product;
    } else if (args.end == ProductEnd::kAdd) {
      *to += product;
    } else {
      *to = Silu(product) * (others[i] * factor);
    }
  }
}

template <class S, WeightType kType>
__device__ inline void KeepAll(const Work<S, kType>& work,
                               const WarpPlace<S>& place, const Sums<S>& sums) {
  const bool gate = work.args.end == ProductEnd::kGate;
#pragma unroll
  for (int r = 0; r < S::kRowTiles; ++r) {
    if (r % S::kInputWarps != place.input) continue;
#pragma unroll
    for (int o = 0; o < S::kOutputTiles; o += 2) {
      const int group = place.output_tile + o, row_tile = place.row_tile + r;
      Keep(work, group, row_tile, sums[o][r], sums[o + 1][r]);
      if (!gate) Keep(work, group + 1, row_tile, sums[o + 1][r], sums[o][r]);
    }
  }
}

int AllGroups(const ProductArgs& args) {
  int groups = 0;
  for (int i = 0; i < args.num_parts; ++i) {
    groups += args.parts[i].matrix.groups();
  }
  return groups;
}

// The first of the block's weights, which no kernel writes: a line a thread.
template <class S>
__device__ void PrefetchGroups(const uint8_t* const* groups, int bytes) {
  constexpr int kLines = kThreads / S::kGroups;
  const int line = static_cast<int>(threadIdx.x) % kLines * kLineBytes;
  if (line < bytes) Prefetch(groups[threadIdx.x / kLines] + line);
}

template <class S, WeightType kType>
__global__ void __launch_bounds__(kThreads, 2)
    TensorProduct(ProductArgs args, int all_groups) {
  __shared__ const uint8_t* groups[S::kGroups];
  const int first_group = blockIdx.y * S::kGroups;
  const int blocks = args.parts[0].matrix.blocks();
  if (threadIdx.x < S::kGroups) {
    const int i = first_group + threadIdx.x;
    const GroupPlace place =
        PlaceOfGroup(args, i < all_groups ? i : all_groups - 1);
    groups[threadIdx.x] = args.parts[place.part].matrix.tiles +
                          int64_t{place.group} * blocks * TileBytes(kType);
  }
  SyncBlock();
  PrefetchGroups<S>(groups, blocks * TileBytes(kType));
  WaitForPredecessor();

  const StepHeader* const step = args.step;
  const int rows = args.wanted_rows ? step->num_logits : step->num_rows;
  const int first_row = blockIdx.x * S::kRows;
  if (first_row >= rows) return;
  const Work<S, kType> work = {args,
                               rows,
                               first_row,
                               first_group,
                               blocks,
                               groups,
                               DynamicShared<uint8_t>()};
  const WarpPlace<S> place(threadIdx.x / 32);
  const int stages = work.stages();
  for (int n = 0; n < kStages - 1; ++n) {
    if (n < stages) work.Fetch(n);
    CommitCopies();
  }
  Sums<S> sums = {};
  for (int n = 0; n < stages; ++n) {
    WaitForCopies<kStages - 2>();
    // Stage n is there for all, and n - 1 is no longer read.
    SyncBlock();
    if (n + kStages - 1 < stages) work.Fetch(n + kStages - 1);
    CommitCopies();
    if (n * S::kInputWarps + place.input < blocks) {
      MultiplyStage<S, kType>(work.StageOf(n), place, sums);
    }
  }
  WaitForCopies<0>();
  if constexpr (S::kInputWarps > 1) {
    AddUpWarps<S>(reinterpret_cast<float*>(work.memory), place, sums);
  }
  KeepAll(work, place, sums);
}

template <class S>
dim3 GridOf(const ProductArgs& args) {
  return {
      static_cast<unsigned>((args.max_rows + S::kRows - 1) / S::kRows),
      static_cast<unsigned>((AllGroups(args) + S::kGroups - 1) / S::kGroups)};
}

template <class S, WeightType kType>
void LaunchShape(Stream* stream, const ProductArgs& args) {
  Launch(stream, GridOf<S>(args), dim3(kThreads),
         kStages * Stage<S, kType>::kBytes, TensorProduct<S, kType>, args,
         AllGroups(args));
}

// Wide, if that gives every multiprocessor something to do.
template <WeightType kType>
void LaunchType(Stream* stream, const ProductArgs& args) {
  const dim3 wide = GridOf<Wide>(args);
  if (args.max_rows > Narrow::kRows &&
      wide.x * wide.y >= static_cast<unsigned>(args.multiprocessors)) {
    LaunchShape<Wide, kType>(stream, args);
  } else {
    LaunchShape<Narrow, kType>(stream, args);
  }
}

// Of matrices of one type.
void LaunchAlike(Stream* stream, const ProductArgs& args) {
  switch (args.parts[0].matrix.type) {
    case WeightType::kF32:
      return LaunchType<WeightType::kF32>(stream, args);
    case WeightType::kF16:
      return LaunchType<WeightType::kF16>(stream, args);
    case WeightType::kBF16:
      return LaunchType<WeightType::kBF16>(stream, args);
    case WeightType::kQ8_0:
      return LaunchType<WeightType::kQ8_0>(stream, args);
    case WeightType::kQ4_0:
      return LaunchType<WeightType::kQ4_0>(stream, args);
    case WeightType::kQ4_1:
      return LaunchType<WeightType::kQ4_1>(stream, args);
  }
}

}  // namespace

void LaunchTensorProduct(Stream* stream, const ProductArgs& args) {
  LaunchRoundRows(stream, args);
  for (int begin = 0, end; begin < args.num_parts; begin = end) {
    ProductArgs alike = args;
    alike.num_parts = 0;
    for (end = begin; end < args.num_parts && args.parts[end].matrix.type ==
                                                  args.parts[begin].matrix.type;
         ++end) {
      alike.parts[alike.num_parts++] = args.parts[end];
    }
    LaunchAlike(stream, alike);
  }
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
