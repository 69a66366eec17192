// Keys and values of the reference backend: plain rows in host memory.
#ifndef MILLRACE_BACKENDS_REFERENCE_KV_STORAGE_H_
#define MILLRACE_BACKENDS_REFERENCE_KV_STORAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/kv_spec.h"
#include "cache/kv_storage.h"

namespace millrace::backends::reference {

enum class KvPart { kKey, kValue };

// A block is in the canonical form of cache/kv_storage.h, in the storage's
// dtype. Address space is taken at once, physical memory as pages are first
// written.
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
  absl::Status ReadBlocks(absl::Span<const int32_t> blocks,
                          absl::Span<float> out) const override;
  absl::Status WriteBlocks(absl::Span<const int32_t> blocks,
                           absl::Span<const float> in) override;

  absl::Status MoveSlots(int layer, int kv_head,
                         absl::Span<const SlotMove> moves) override;

  // Values of all KV heads of one token: num_kv_heads * head_dim.
  int row_values() const { return spec_.num_kv_heads * spec_.head_dim; }

  // Rounds a row to the dtype and writes it; reads it back as rounded.
  // REQUIRES: the span has row_values() values.
  void StoreRow(int layer, KvPart part, int32_t block, int slot,
                absl::Span<const float> row);
  void LoadRow(int layer, KvPart part, int32_t block, int slot,
               absl::Span<float> row) const;

 private:
  PlainKvStorage(const cache::KvSpec& spec, int32_t num_blocks, void* memory)
      : spec_(spec), num_blocks_(num_blocks), memory_(memory) {}

  // Offset of a row, in values.
  size_t RowOffset(int layer, KvPart part, int32_t block, int slot) const;
  void Store(size_t offset, absl::Span<const float> values);
  void Load(size_t offset, absl::Span<float> values) const;

  const cache::KvSpec spec_;
  const int32_t num_blocks_;
  void* const memory_;  // [num_blocks][layer][part][token][kv_head][head_dim]
};

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_KV_STORAGE_H_
