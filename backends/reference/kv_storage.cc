#include "backends/reference/kv_storage.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "backends/quant/half.h"

namespace millrace::backends::reference {
namespace {

// mmap of zero bytes fails; a storage of no blocks is still a storage.
size_t MappedBytes(const cache::KvSpec& spec, int32_t num_blocks) {
  return std::max<size_t>(1, static_cast<size_t>(num_blocks) *
                                 static_cast<size_t>(spec.BytesPerBlock()));
}

template <uint16_t (*narrow)(float)>
void Narrow(absl::Span<const float> from, uint16_t* to) {
  for (size_t i = 0; i < from.size(); ++i) to[i] = narrow(from[i]);
}

template <float (*widen)(uint16_t)>
void Widen(const uint16_t* from, absl::Span<float> to) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = widen(from[i]);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PlainKvStorage>> PlainKvStorage::Create(
    const cache::KvSpec& spec, int32_t num_blocks) {
  const size_t bytes = MappedBytes(spec, num_blocks);
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("create KV storage: ", bytes, " bytes for ", num_blocks,
                     " blocks do not fit the address space; ask for fewer"));
  }
  return std::unique_ptr<PlainKvStorage>(
      new PlainKvStorage(spec, num_blocks, memory));
}

PlainKvStorage::~PlainKvStorage() {
  munmap(memory_, MappedBytes(spec_, num_blocks_));
}

absl::Status PlainKvStorage::ReadBlocks(absl::Span<const int32_t> blocks,
                                        absl::Span<float> out) const {
  const size_t values = cache::CanonicalBlockValues(spec_);
  for (size_t i = 0; i < blocks.size(); ++i) {
    Load(blocks[i] * values, out.subspan(i * values, values));
  }
  return absl::OkStatus();
}

absl::Status PlainKvStorage::WriteBlocks(absl::Span<const int32_t> blocks,
                                         absl::Span<const float> in) {
  const size_t values = cache::CanonicalBlockValues(spec_);
  for (size_t i = 0; i < blocks.size(); ++i) {
    Store(blocks[i] * values, in.subspan(i * values, values));
  }
  return absl::OkStatus();
}

absl::Status PlainKvStorage::MoveSlots(int layer, int kv_head,
                                       absl::Span<const SlotMove> moves) {
  const size_t width = cache::BytesPerValue(spec_.dtype);
  const size_t head = size_t{1} * kv_head * spec_.head_dim;
  uint8_t* const bytes = static_cast<uint8_t*>(memory_);
  for (const SlotMove& move : moves) {
    for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
      const auto numbers = [&](const cache::KvView::Slot& slot) {
        return bytes +
               width * (RowOffset(layer, part, slot.block, slot.slot) + head);
      };
      std::memmove(numbers(move.to), numbers(move.from),
                   width * spec_.head_dim);
    }
  }
  return absl::OkStatus();
}

void PlainKvStorage::StoreRow(int layer, KvPart part, int32_t block, int slot,
                              absl::Span<const float> row) {
  Store(RowOffset(layer, part, block, slot), row);
}

void PlainKvStorage::LoadRow(int layer, KvPart part, int32_t block, int slot,
                             absl::Span<float> row) const {
  Load(RowOffset(layer, part, block, slot), row);
}

size_t PlainKvStorage::RowOffset(int layer, KvPart part, int32_t block,
                                 int slot) const {
  const size_t plane =
      2 * static_cast<size_t>(layer) + (part == KvPart::kValue ? 1 : 0);
  return static_cast<size_t>(block) * cache::CanonicalBlockValues(spec_) +
         (plane * cache::kBlockTokens + slot) * row_values();
}

void PlainKvStorage::Store(size_t offset, absl::Span<const float> values) {
  uint16_t* const halves = static_cast<uint16_t*>(memory_) + offset;
  switch (spec_.dtype) {
    case cache::KvDtype::kF32:
      std::memcpy(static_cast<float*>(memory_) + offset, values.data(),
                  values.size() * sizeof(float));
      return;
    case cache::KvDtype::kF16:
      return Narrow<FloatToHalf>(values, halves);
    case cache::KvDtype::kBF16:
      return Narrow<FloatToBfloat16>(values, halves);
  }
}

void PlainKvStorage::Load(size_t offset, absl::Span<float> values) const {
  const uint16_t* const halves = static_cast<const uint16_t*>(memory_) + offset;
  switch (spec_.dtype) {
    case cache::KvDtype::kF32:
      std::memcpy(values.data(), static_cast<const float*>(memory_) + offset,
                  values.size() * sizeof(float));
      return;
    case cache::KvDtype::kF16:
      return Widen<HalfToFloat>(halves, values);
    case cache::KvDtype::kBF16:
      return Widen<Bfloat16ToFloat>(halves, values);
  }
}

}  // namespace millrace::backends::reference
