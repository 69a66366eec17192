#include "backends/reference/kv_storage.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "backends/quant/half.h"
#include "backends/quant/scaled_int8.h"

namespace millrace::backends::reference {
namespace {

// mmap of zero bytes fails; a storage of no blocks is still a storage.
size_t MappedBytes(const cache::KvSpec& spec, int32_t num_blocks) {
  return std::max<size_t>(1, static_cast<size_t>(num_blocks) *
                                 static_cast<size_t>(spec.BytesPerBlock()));
}

template <uint16_t (*narrow)(float)>
void Narrow(absl::Span<const float> from, uint8_t* to) {
  uint16_t* const halves = reinterpret_cast<uint16_t*>(to);
  for (size_t i = 0; i < from.size(); ++i) halves[i] = narrow(from[i]);
}

template <float (*widen)(uint16_t)>
void Widen(const uint8_t* from, absl::Span<float> to) {
  const uint16_t* const halves = reinterpret_cast<const uint16_t*>(from);
  for (size_t i = 0; i < to.size(); ++i) to[i] = widen(halves[i]);
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

absl::Status PlainKvStorage::ReadBlocks(absl::Span<const cache::KvBlock> blocks,
                                        absl::Span<float> out) const {
  for (const cache::KvBlock& block : blocks) {
    for (int layer = 0; layer < spec_.num_layers; ++layer) {
      for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
        for (int slot = 0; slot < cache::kBlockTokens; ++slot) {
          LoadRow(layer, part, block, slot, out.subspan(0, row_values()));
          out.remove_prefix(row_values());
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status PlainKvStorage::WriteBlocks(
    absl::Span<const cache::KvBlock> blocks, absl::Span<const float> in) {
  for (const cache::KvBlock& block : blocks) {
    for (int layer = 0; layer < spec_.num_layers; ++layer) {
      for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
        for (int slot = 0; slot < cache::kBlockTokens; ++slot) {
          StoreRow(layer, part, block, slot, in.subspan(0, row_values()));
          in.remove_prefix(row_values());
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status PlainKvStorage::MoveSlots(int layer, int kv_head,
                                       absl::Span<const SlotMove> moves) {
  const size_t scale_bytes = cache::BytesPerScale(spec_.dtype);
  for (const auto& [from, to] : moves) {
    for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
      const uint8_t* const source =
          Row(layer, part, from.kv_block(), from.slot);
      uint8_t* const target = Row(layer, part, to.kv_block(), to.slot);
      const bool wide = from.kv_block().wide();
      const size_t bytes =
          spec_.head_dim *
          (wide ? sizeof(uint16_t) : cache::BytesPerValue(spec_.dtype));
      std::memmove(target + kv_head * bytes, source + kv_head * bytes, bytes);
      if (wide || scale_bytes == 0) continue;
      const size_t scale = row_values() + kv_head * scale_bytes;
      std::memmove(target + scale, source + scale, scale_bytes);
    }
  }
  return absl::OkStatus();
}

void PlainKvStorage::StoreRow(int layer, KvPart part, cache::KvBlock block,
                              int slot, absl::Span<const float> row) {
  uint8_t* const to = Row(layer, part, block, slot);
  if (block.wide()) return Narrow<FloatToHalf>(row, to);
  switch (spec_.dtype) {
    case cache::KvDtype::kF32:
      std::memcpy(to, row.data(), row.size() * sizeof(float));
      return;
    case cache::KvDtype::kF16:
      return Narrow<FloatToHalf>(row, to);
    case cache::KvDtype::kBF16:
      return Narrow<FloatToBfloat16>(row, to);
    case cache::KvDtype::kInt8:
      return StoreScaled(row, to);
  }
}

void PlainKvStorage::LoadRow(int layer, KvPart part, cache::KvBlock block,
                             int slot, absl::Span<float> row) const {
  const uint8_t* const from = Row(layer, part, block, slot);
  if (block.wide()) return Widen<HalfToFloat>(from, row);
  switch (spec_.dtype) {
    case cache::KvDtype::kF32:
      std::memcpy(row.data(), from, row.size() * sizeof(float));
      return;
    case cache::KvDtype::kF16:
      return Widen<HalfToFloat>(from, row);
    case cache::KvDtype::kBF16:
      return Widen<Bfloat16ToFloat>(from, row);
    case cache::KvDtype::kInt8:
      return LoadScaled(from, row);
  }
}

uint8_t* PlainKvStorage::Row(int layer, KvPart part, cache::KvBlock block,
                             int slot) const {
  const bool key = part == KvPart::kKey;
  const size_t layer_bytes = spec_.BytesPerBlock() / spec_.num_layers;
  const int32_t number = block.wide() && !key ? block.value_block : block.block;
  uint8_t* const first =
      memory_ + size_t(number) * spec_.BytesPerBlock() + layer * layer_bytes;
  if (block.wide()) return first + slot * row_values() * sizeof(uint16_t);
  const int row = key ? slot : cache::kBlockTokens + slot;
  return first + row * (layer_bytes / (2 * cache::kBlockTokens));
}

void PlainKvStorage::StoreScaled(absl::Span<const float> row,
                                 uint8_t* to) const {
  uint8_t* scale_at = to + row_values();
  for (; !row.empty(); row.remove_prefix(spec_.head_dim)) {
    const float scale = RoundToScaledInt8(row.subspan(0, spec_.head_dim),
                                          reinterpret_cast<int8_t*>(to));
    std::memcpy(scale_at, &scale, sizeof(scale));
    to += spec_.head_dim;
    scale_at += sizeof(scale);
  }
}

void PlainKvStorage::LoadScaled(const uint8_t* from,
                                absl::Span<float> row) const {
  const int8_t* const q = reinterpret_cast<const int8_t*>(from);
  for (size_t i = 0; i < row.size(); ++i) {
    float scale;
    std::memcpy(&scale,
                from + row_values() + i / spec_.head_dim * sizeof(scale),
                sizeof(scale));
    row[i] = q[i] * scale;
  }
}

}  // namespace millrace::backends::reference
