// Keys and values of the reference backend: plain rows in host memory.
#ifndef MILLRACE_BACKENDS_REFERENCE_KV_STORAGE_H_
#define MILLRACE_BACKENDS_REFERENCE_KV_STORAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/kv_block.h"
#include "cache/kv_spec.h"
#include "cache/kv_storage.h"

namespace millrace::backends::reference {

enum class KvPart { kKey, kValue };

// Rows of a token, all KV heads, in the order of cache/kv_storage.h; a row of
// 8-bit numbers is followed by its heads' scales:
//
//   block                [layer][key, value][token] of a row
//   block of a wide pair [layer][token] of a row in half precision; no layer
//                        takes more than those above
//
// Address space is taken at once, physical memory as pages are first written.
//
// Not thread-safe.
class PlainKvStorage final : public cache::KvStorage {
 public:
  // RESOURCE_EXHAUSTED if the address space cannot be had.
  static absl::StatusOr<std::unique_ptr<PlainKvStorage>> Create(
      const cache::KvSpec& spec, int32_t num_blocks);
  ~PlainKvStorage() override;
  PlainKvStorage(const PlainKvStorage&) = delete;
  PlainKvStorage& operator=(const PlainKvStorage&) = delete;

  const cache::KvSpec& spec() const override { return spec_; }
  int32_t num_blocks() const override { return num_blocks_; }
  absl::Status ReadBlocks(absl::Span<const cache::KvBlock> blocks,
                          absl::Span<float> out) const override;
  absl::Status WriteBlocks(absl::Span<const cache::KvBlock> blocks,
                           absl::Span<const float> in) override;

  absl::Status MoveSlots(int layer, int kv_head,
                         absl::Span<const SlotMove> moves) override;

  // Values of all KV heads of one token: num_kv_heads * head_dim.
  int row_values() const { return spec_.num_kv_heads * spec_.head_dim; }

  // Rounds a row to the dtype and writes it; reads it back as rounded.
  // REQUIRES: the span has row_values() values.
  void StoreRow(int layer, KvPart part, cache::KvBlock block, int slot,
                absl::Span<const float> row);
  void LoadRow(int layer, KvPart part, cache::KvBlock block, int slot,
               absl::Span<float> row) const;

 private:
  PlainKvStorage(const cache::KvSpec& spec, int32_t num_blocks, void* memory)
      : spec_(spec),
        num_blocks_(num_blocks),
        memory_(static_cast<uint8_t*>(memory)) {}

  uint8_t* Row(int layer, KvPart part, cache::KvBlock block, int slot) const;
  void StoreScaled(absl::Span<const float> row, uint8_t* to) const;
  void LoadScaled(const uint8_t* from, absl::Span<float> row) const;

  const cache::KvSpec spec_;
  const int32_t num_blocks_;
  uint8_t* const memory_;  // [num_blocks]
};

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_KV_STORAGE_H_
