#include "backends/onednn/kv_storage.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "backends/quant/half.h"

namespace millrace::backends::onednn {
namespace {

using cache::kBlockTokens;

int64_t TileBytes(const cache::KvSpec& spec) {
  return kBlockTokens *
         (RoundUp16(spec.head_dim) * cache::BytesPerValue(spec.dtype) +
          cache::BytesPerScale(spec.dtype));
}

}  // namespace

KvKernels KvKernelsFor(const Kernels& kernels, cache::KvDtype dtype) {
  switch (dtype) {
    case cache::KvDtype::kF32:
      break;
    case cache::KvDtype::kF16:
      return {.scores = kernels.scores_f16,
              .values = kernels.values_f16,
              .rebase = kernels.rebase_f16,
              .narrow = kernels.to_f16,
              .widen = HalfToFloat};
    case cache::KvDtype::kBF16:
      return {.scores = kernels.scores_bf16,
              .values = kernels.values_bf16,
              .rebase = kernels.rebase_bf16,
              .narrow = kernels.to_bf16,
              .widen = Bfloat16ToFloat};
    case cache::KvDtype::kInt8:
      return {.scores = kernels.scores_int8,
              .values = kernels.values_int8,
              .rebase = kernels.rebase_int8,
              .rounds_queries = true};
  }
  return {.scores = kernels.scores_f32,
          .values = kernels.values_f32,
          .rebase = kernels.rebase_f32};
}

absl::StatusOr<std::unique_ptr<TiledKvStorage>> TiledKvStorage::Create(
    const cache::KvSpec& spec, int32_t num_blocks, const Kernels* kernels) {
  size_t bytes = 2 * TileBytes(spec);
  for (const int factor : {spec.num_layers, spec.num_kv_heads, num_blocks}) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(factor), &bytes)) {
      bytes = std::numeric_limits<size_t>::max();  // more than can be had
      break;
    }
  }
  absl::StatusOr<MemoryRegion> memory = MemoryRegion::Map(
      bytes, absl::StrCat("KV storage of ", num_blocks, " blocks"));
  if (!memory.ok()) return memory.status();
  return std::unique_ptr<TiledKvStorage>(
      new TiledKvStorage(spec, num_blocks, kernels, *std::move(memory)));
}

TiledKvStorage::TiledKvStorage(const cache::KvSpec& spec, int32_t num_blocks,
                               const Kernels* kernels, MemoryRegion memory)
    : spec_(spec),
      num_blocks_(num_blocks),
      kernels_(KvKernelsFor(*kernels, spec.dtype)),
      wide_kernels_(KvKernelsFor(*kernels, cache::KvDtype::kF16)),
      to_int8_(kernels->to_int8),
      padded_dim_(RoundUp16(spec.head_dim)),
      tile_bytes_(TileBytes(spec)),
      memory_(std::move(memory)) {}

void TiledKvStorage::Store(int layer, bool key, int kv_head,
                           cache::KvBlock block, int slot,
                           const float* numbers) {
  if (rounds_whole() && !block.wide()) {
    return StoreScaled(Tile(layer, kv_head, block, key), key, slot, numbers);
  }
  for (int d = 0; d < padded_dim_; d += 16) {
    const absl::Span<const float> sixteen(numbers + d, 16);
    if (key) {
      StoreKey(layer, kv_head, block, slot, d, sixteen);
    } else {
      StoreValue(layer, kv_head, block, slot, d, sixteen);
    }
  }
}

void TiledKvStorage::StoreScaled(uint8_t* tile, bool key, int slot,
                                 const float* numbers) {
  int8_t* const to = reinterpret_cast<int8_t*>(tile);
  if (!key) {
    Scales(tile)[slot] =
        to_int8_(numbers, padded_dim_, to + slot * padded_dim_);
    return;
  }
  absl::InlinedVector<int8_t, 256> rounded(padded_dim_);
  Scales(tile)[slot] = to_int8_(numbers, padded_dim_, rounded.data());
  for (int d = 0; d < padded_dim_; ++d) {
    to[d * kBlockTokens + slot] = rounded[d];
  }
}

void TiledKvStorage::StoreKey(int layer, int kv_head, cache::KvBlock block,
                              int slot, int d,
                              absl::Span<const float> numbers) {
  uint8_t* const tile = Tile(layer, kv_head, block, /*key=*/true);
  const auto narrow = kernels(block.wide()).narrow;
  const int n = static_cast<int>(numbers.size());
  if (narrow == nullptr) {
    float* const to = reinterpret_cast<float*>(tile) + d * kBlockTokens + slot;
    for (int i = 0; i < n; ++i) to[i * kBlockTokens] = numbers[i];
    return;
  }
  float padded[16] = {};
  uint16_t halves[16];
  std::copy(numbers.begin(), numbers.end(), padded);
  narrow(padded, 16, halves);
  uint16_t* const to =
      reinterpret_cast<uint16_t*>(tile) + d * kBlockTokens + slot;
  for (int i = 0; i < n; ++i) to[i * kBlockTokens] = halves[i];
}

void TiledKvStorage::StoreValue(int layer, int kv_head, cache::KvBlock block,
                                int slot, int d,
                                absl::Span<const float> numbers) {
  uint8_t* const tile = Tile(layer, kv_head, block, /*key=*/false);
  const auto narrow = kernels(block.wide()).narrow;
  const int at = slot * padded_dim_ + d;
  if (narrow == nullptr) {
    std::copy(numbers.begin(), numbers.end(),
              reinterpret_cast<float*>(tile) + at);
    return;
  }
  float padded[16] = {};
  uint16_t halves[16];
  std::copy(numbers.begin(), numbers.end(), padded);
  narrow(padded, 16, halves);
  std::copy_n(halves, numbers.size(), reinterpret_cast<uint16_t*>(tile) + at);
}

float TiledKvStorage::Load(int layer, bool key, int kv_head,
                           cache::KvBlock block, int slot, int d) const {
  uint8_t* const tile = Tile(layer, kv_head, block, key);
  const int index = IndexOf(key, slot, d);
  if (const auto widen = kernels(block.wide()).widen) {
    return widen(reinterpret_cast<const uint16_t*>(tile)[index]);
  }
  if (rounds_whole()) {
    return Scales(tile)[slot] * reinterpret_cast<const int8_t*>(tile)[index];
  }
  return reinterpret_cast<const float*>(tile)[index];
}

absl::Status TiledKvStorage::ReadBlocks(absl::Span<const cache::KvBlock> blocks,
                                        absl::Span<float> out) const {
  float* to = out.data();
  for (const cache::KvBlock& block : blocks) {
    for (int layer = 0; layer < spec_.num_layers; ++layer) {
      for (const bool key : {true, false}) {
        for (int slot = 0; slot < kBlockTokens; ++slot) {
          for (int head = 0; head < spec_.num_kv_heads; ++head) {
            for (int d = 0; d < spec_.head_dim; ++d) {
              *to++ = Load(layer, key, head, block, slot, d);
            }
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status TiledKvStorage::WriteBlocks(
    absl::Span<const cache::KvBlock> blocks, absl::Span<const float> in) {
  std::vector<float> padded(padded_dim_);
  const float* from = in.data();
  for (const cache::KvBlock& block : blocks) {
    for (int layer = 0; layer < spec_.num_layers; ++layer) {
      for (const bool key : {true, false}) {
        for (int slot = 0; slot < kBlockTokens; ++slot) {
          for (int head = 0; head < spec_.num_kv_heads; ++head) {
            std::copy_n(from, spec_.head_dim, padded.begin());
            from += spec_.head_dim;
            Store(layer, key, head, block, slot, padded.data());
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status TiledKvStorage::MoveSlots(int layer, int kv_head,
                                       absl::Span<const SlotMove> moves) {
  for (const auto& [from, to] : moves) {
    const bool wide = from.kv_block().wide();
    const int64_t bytes = wide ? 2 : cache::BytesPerValue(spec_.dtype);
    for (const bool key : {true, false}) {
      uint8_t* const source = Tile(layer, kv_head, from.kv_block(), key);
      uint8_t* const target = Tile(layer, kv_head, to.kv_block(), key);
      for (int d = 0; d < padded_dim_; ++d) {
        std::memmove(target + bytes * IndexOf(key, to.slot, d),
                     source + bytes * IndexOf(key, from.slot, d), bytes);
      }
      if (!rounds_whole() || wide) continue;
      Scales(target)[to.slot] = Scales(source)[from.slot];
    }
  }
  return absl::OkStatus();
}

}  // namespace millrace::backends::onednn
