// How keys and values lie on the device.
//
//   block   [layer][kv_head] of a key tile and a value tile
//   tile    [16 tokens][padded_dim]; of 8-bit numbers, followed by the 16
//           tokens' scales as floats
//
// padded_dim is head_dim up to a multiple of 16, and what is beyond head_dim is
// never read. Of a wide pair (cache/kv_block.h) one block has a tile of keys in
// half precision where its two tiles are, the other one of values.
#ifndef MILLRACE_BACKENDS_CUDA_KERNELS_KV_MEMORY_H_
#define MILLRACE_BACKENDS_CUDA_KERNELS_KV_MEMORY_H_

#include <cstdint>

#include "cache/kv_spec.h"

namespace millrace::backends::cuda {

// A tile, and how to read it.
struct KvTile {
  uint8_t* data;
  cache::KvDtype dtype;
};

struct KvMemory {
  uint8_t* data = nullptr;
  cache::KvDtype dtype = cache::KvDtype::kF16;
  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int padded_dim = 0;
  int64_t tile_bytes = 0;

  constexpr KvTile Tile(int layer, int kv_head, int32_t block,
                        int32_t value_block, bool key) const {
    const bool wide = value_block >= 0;
    const int64_t number = wide && !key ? value_block : block;
    const int64_t pair = (number * num_layers + layer) * num_kv_heads + kv_head;
    return {data + (2 * pair + (!key && !wide)) * tile_bytes,
            wide ? cache::KvDtype::kF16 : dtype};
  }
};

constexpr int KvBytesPerNumber(cache::KvDtype dtype) {
  return dtype == cache::KvDtype::kF32    ? 4
         : dtype == cache::KvDtype::kInt8 ? 1
                                          : 2;
}

constexpr KvMemory KvMemoryOf(const cache::KvSpec& spec, uint8_t* data) {
  const int padded = (spec.head_dim + 15) / 16 * 16;
  const int scale = spec.dtype == cache::KvDtype::kInt8 ? 4 : 0;
  return {.data = data,
          .dtype = spec.dtype,
          .num_layers = spec.num_layers,
          .num_kv_heads = spec.num_kv_heads,
          .head_dim = spec.head_dim,
          .padded_dim = padded,
          .tile_bytes = cache::kBlockTokens *
                        (padded * KvBytesPerNumber(spec.dtype) + scale)};
}

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_KERNELS_KV_MEMORY_H_
