// Keys and values of the CPU backend, in tiles that attention reads with one
// vector per load.
//
//   block   [layer][kv_head] of a key tile and a value tile
//   key     [head_dim][16 tokens]   lane = token: scores without a sum across
//   value   [16 tokens][head_dim]   lane = d
//
// head_dim is padded with zeros to a multiple of 16. A tile of fp16 at head_dim
// 64 is 2 KiB, and so is one of bfloat16. One of 8-bit numbers is followed by
// the scales of its 16 tokens as floats, 1,088 bytes together; of a wide pair
// one block has a tile of fp16 keys where those two tiles are, the other
// values.
#ifndef MILLRACE_BACKENDS_ONEDNN_KV_STORAGE_H_
#define MILLRACE_BACKENDS_ONEDNN_KV_STORAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backends/onednn/kernels/kernels.h"
#include "backends/onednn/memory_region.h"
#include "backends/onednn/packed_matrix.h"
#include "cache/kv_block.h"
#include "cache/kv_spec.h"
#include "cache/kv_storage.h"

namespace millrace::backends::onednn {

// What a table of kernels has for one dtype: the only place that a new one
// needs besides the kernels themselves.
struct KvKernels {
  AttentionScores scores;
  AttentionValues values;
  RebaseKeys rebase;
  bool rounds_queries = false;  // scores are of AttentionQueries::rounded
  // Null for floats, which are copied, and for 8-bit numbers, which share
  // scales.
  void (*narrow)(const float* in, int n, uint16_t* out) = nullptr;
  float (*widen)(uint16_t) = nullptr;
};

KvKernels KvKernelsFor(const Kernels& kernels, cache::KvDtype dtype);

// Different slots may be written by different threads at once; otherwise not
// thread-safe.
class TiledKvStorage final : public cache::KvStorage {
 public:
  // RESOURCE_EXHAUSTED if the address space cannot be had. `kernels` lives for
  // ever.
  static absl::StatusOr<std::unique_ptr<TiledKvStorage>> Create(
      const cache::KvSpec& spec, int32_t num_blocks, const Kernels* kernels);

  const cache::KvSpec& spec() const override { return spec_; }
  int32_t num_blocks() const override { return num_blocks_; }
  absl::Status ReadBlocks(absl::Span<const cache::KvBlock> blocks,
                          absl::Span<float> out) const override;
  absl::Status WriteBlocks(absl::Span<const cache::KvBlock> blocks,
                           absl::Span<const float> in) override;
  absl::Status MoveSlots(int layer, int kv_head,
                         absl::Span<const SlotMove> moves) override;

  // For the tiles of blocks, or of wide pairs.
  const KvKernels& kernels(bool wide) const {
    return wide ? wide_kernels_ : kernels_;
  }

  // The tiles of a block or of a pair, for `kernels(block.wide())`.
  const void* Keys(int layer, int kv_head, cache::KvBlock block) const {
    return Tile(layer, kv_head, block, /*key=*/true);
  }
  const void* Values(int layer, int kv_head, cache::KvBlock block) const {
    return Tile(layer, kv_head, block, /*key=*/false);
  }

  // Whether a key or a value can only be rounded as a whole: Store is for all,
  // StoreKey and StoreValue are for the others.
  bool rounds_whole() const { return cache::InfoOf(spec_.dtype).scaled; }

  // Rounds a token's key or value and writes it. `numbers` are head_dim and
  // zeros up to a multiple of 16.
  void Store(int layer, bool key, int kv_head, cache::KvBlock block, int slot,
             const float* numbers);

  // Rounds the numbers `d`, d + 1, ... of a token's key or value and writes
  // them. At most 16. REQUIRES: !rounds_whole(), or a wide pair.
  void StoreKey(int layer, int kv_head, cache::KvBlock block, int slot, int d,
                absl::Span<const float> numbers);
  void StoreValue(int layer, int kv_head, cache::KvBlock block, int slot, int d,
                  absl::Span<const float> numbers);

 private:
  TiledKvStorage(const cache::KvSpec& spec, int32_t num_blocks,
                 const Kernels* kernels, MemoryRegion memory);

  uint8_t* Tile(int layer, int kv_head, cache::KvBlock block, bool key) const {
    const bool other = !key && block.wide();
    const ptrdiff_t number = other ? block.value_block : block.block;
    const ptrdiff_t pair =
        (number * spec_.num_layers + layer) * spec_.num_kv_heads + kv_head;
    const bool second = !key && !block.wide();
    return memory_.data() + (2 * pair + second) * tile_bytes_;
  }
  // Where number d of a token is in a tile, counted in numbers.
  int IndexOf(bool key, int slot, int d) const {
    return key ? d * cache::kBlockTokens + slot : slot * padded_dim_ + d;
  }
  float* Scales(uint8_t* tile) const {
    return reinterpret_cast<float*>(tile + cache::kBlockTokens * padded_dim_);
  }
  void StoreScaled(uint8_t* tile, bool key, int slot, const float* numbers);
  float Load(int layer, bool key, int kv_head, cache::KvBlock block, int slot,
             int d) const;

  const cache::KvSpec spec_;
  const int32_t num_blocks_;
  const KvKernels kernels_, wide_kernels_;
  float (*const to_int8_)(const float* in, int n, int8_t* out);
  const int padded_dim_;
  const ptrdiff_t tile_bytes_;  // with scales
  MemoryRegion memory_;
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_KV_STORAGE_H_
