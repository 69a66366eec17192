// Keys and values of the CPU backend, in tiles that attention reads with one
// vector per load.
//
//   block   [layer][kv_head] of a key tile and a value tile
//   key     [head_dim][16 tokens]   lane = token: scores without a sum across
//   value   [16 tokens][head_dim]   lane = d
//
// head_dim is padded with zeros to a multiple of 16. A tile of fp16 at head_dim
// 64 is 2 KiB, and so is one of bfloat16.
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
#include "cache/kv_spec.h"
#include "cache/kv_storage.h"

namespace millrace::backends::onednn {

// What a table of kernels has for one dtype: the only place that a new one
// needs besides the kernels themselves.
struct KvKernels {
  AttentionScores scores;
  AttentionValues values;
  RebaseKeys rebase;
  // Null for floats, which are copied.
  void (*narrow)(const float* in, int n, uint16_t* out);
  float (*widen)(uint16_t);
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

  const KvKernels& kernels() const { return kernels_; }

  // The tiles of a block, for `kernels()`.
  const void* Keys(int layer, int kv_head, int32_t block) const {
    return Tile(layer, kv_head, block);
  }
  const void* Values(int layer, int kv_head, int32_t block) const {
    return Tile(layer, kv_head, block) + tile_bytes_;
  }

  // Rounds the numbers `d`, d + 1, ... of a token's key or value and writes
  // them. At most 16.
  void StoreKey(int layer, int kv_head, int32_t block, int slot, int d,
                absl::Span<const float> numbers);
  void StoreValue(int layer, int kv_head, int32_t block, int slot, int d,
                  absl::Span<const float> numbers);

 private:
  TiledKvStorage(const cache::KvSpec& spec, int32_t num_blocks,
                 const Kernels* kernels, MemoryRegion memory);

  uint8_t* Tile(int layer, int kv_head, int32_t block) const {
    const ptrdiff_t tile =
        (static_cast<ptrdiff_t>(block) * spec_.num_layers + layer) *
            spec_.num_kv_heads +
        kv_head;
    return memory_.data() + 2 * tile * tile_bytes_;
  }
  float Load(const uint8_t* tile, int index) const;

  const cache::KvSpec spec_;
  const int32_t num_blocks_;
  const KvKernels kernels_;
  const int padded_dim_;
  const ptrdiff_t tile_bytes_;
  MemoryRegion memory_;
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_KV_STORAGE_H_
