// Blocks to and from the canonical form of cache/kv_storage.h, and slots that
// move.
//
//   read, write   a warp for each vector: block, layer, key or value, token,
//                 head; bound by memory
//   move          a thread block for each list; its moves one after another, as
//                 a slot may be read after it was written
#include "backends/cuda/kernels/kv_numbers.h"
#include "backends/cuda/kernels/launchers.h"
#include "backends/cuda/kernels/target.h"

namespace millrace::backends::cuda::MILLRACE_CUDA_CODE {
namespace {

using cache::kBlockTokens;

constexpr int kWarps = 4;
constexpr int kMoveThreads = 128;

// A vector of the canonical form.
struct Vector {
  KvTile tile;
  int slot;
  float* numbers;
};

__device__ int64_t VectorsOfBlock(const KvMemory& kv) {
  return int64_t{2} * kBlockTokens * kv.num_layers * kv.num_kv_heads;
}

__device__ Vector VectorAt(const KvBlocksArgs& args, int64_t index) {
  const KvMemory& kv = args.kv;
  const int64_t block = index / VectorsOfBlock(kv);
  const int in_block = static_cast<int>(index % VectorsOfBlock(kv));
  const int head = in_block % kv.num_kv_heads;
  const int token = in_block / kv.num_kv_heads;
  const bool key = token / kBlockTokens % 2 == 0;
  const int layer = token / (2 * kBlockTokens);
  return {kv.Tile(layer, head, args.blocks[2 * block],
                  args.blocks[2 * block + 1], key),
          token % kBlockTokens, args.numbers + index * kv.head_dim};
}

__global__ void ReadBlocks(KvBlocksArgs args) {
  WaitForPredecessor();
  const int64_t index = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (index >= args.num_blocks * VectorsOfBlock(args.kv)) return;
  const Vector vector = VectorAt(args, index);
  for (int d = threadIdx.x % 32; d < args.kv.head_dim; d += 32) {
    vector.numbers[d] =
        LoadNumber(vector.tile, args.kv.padded_dim, vector.slot, d);
  }
}

__global__ void WriteBlocks(KvBlocksArgs args) {
  WaitForPredecessor();
  const int64_t index = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (index >= args.num_blocks * VectorsOfBlock(args.kv)) return;
  const Vector vector = VectorAt(args, index);
  StoreVector(vector.tile, args.kv.head_dim, args.kv.padded_dim, vector.slot,
              [&](int d) { return vector.numbers[d]; });
}

__global__ void MoveSlots(MoveSlotsArgs args) {
  WaitForPredecessor();
  const KvMemory& kv = args.kv;
  const KvMoveList list = args.lists[blockIdx.x];
  for (int m = list.begin; m < list.end; ++m) {
    const KvMove move = args.moves[m];
    for (int part = 0; part < 2; ++part) {
      const bool key = part == 0;
      const KvTile from = kv.Tile(list.layer, list.kv_head, move.from_block,
                                  move.from_value_block, key);
      const KvTile to = kv.Tile(list.layer, list.kv_head, move.to_block,
                                move.to_value_block, key);
      const int bytes = kv.padded_dim * KvBytesPerNumber(from.dtype);
      for (int i = threadIdx.x; i < bytes; i += kMoveThreads) {
        to.data[move.to_slot * bytes + i] =
            from.data[move.from_slot * bytes + i];
      }
      if (from.dtype == KvDtype::kInt8 && threadIdx.x == 0) {
        ScalesOf(to, kv.padded_dim)[move.to_slot] =
            ScalesOf(from, kv.padded_dim)[move.from_slot];
      }
    }
    SyncBlock();
  }
}

dim3 Grid(const KvBlocksArgs& args) {
  const int64_t vectors = int64_t{2} * kBlockTokens * args.kv.num_layers *
                          args.kv.num_kv_heads * args.num_blocks;
  return dim3(static_cast<unsigned>((vectors + kWarps - 1) / kWarps));
}

}  // namespace

void LaunchReadBlocks(Stream* stream, const KvBlocksArgs& args) {
  Launch(stream, Grid(args), dim3(32 * kWarps), 0, ReadBlocks, args);
}

void LaunchWriteBlocks(Stream* stream, const KvBlocksArgs& args) {
  Launch(stream, Grid(args), dim3(32 * kWarps), 0, WriteBlocks, args);
}

void LaunchMoveSlots(Stream* stream, const MoveSlotsArgs& args) {
  Launch(stream, dim3(args.num_lists), dim3(kMoveThreads), 0, MoveSlots, args);
}

}  // namespace millrace::backends::cuda::MILLRACE_CUDA_CODE
