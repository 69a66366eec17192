#include "backends/onednn/kv_storage.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backends/quant/half.h"

namespace millrace::backends::onednn {
namespace {

using cache::kBlockTokens;

int64_t TileBytes(const cache::KvSpec& spec) {
  return int64_t{kBlockTokens} * RoundUp16(spec.head_dim) *
         cache::BytesPerValue(spec.dtype);
}

}  // namespace

KvKernels KvKernelsFor(const Kernels& kernels, cache::KvDtype dtype) {
  switch (dtype) {
    case cache::KvDtype::kF32:
      break;
    case cache::KvDtype::kF16:
      return {kernels.scores_f16, kernels.values_f16, kernels.rebase_f16,
              kernels.to_f16, HalfToFloat};
    case cache::KvDtype::kBF16:
      return {kernels.scores_bf16, kernels.values_bf16, kernels.rebase_bf16,
              kernels.to_bf16, Bfloat16ToFloat};
  }
  return {kernels.scores_f32, kernels.values_f32, kernels.rebase_f32, nullptr,
          nullptr};
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
      padded_dim_(RoundUp16(spec.head_dim)),
      tile_bytes_(TileBytes(spec)),
      memory_(std::move(memory)) {}

void TiledKvStorage::StoreKey(int layer, int kv_head, int32_t block, int slot,
                              int d, absl::Span<const float> numbers) {
  uint8_t* const tile = Tile(layer, kv_head, block);
  const int n = static_cast<int>(numbers.size());
  if (kernels_.narrow == nullptr) {
    float* const to = reinterpret_cast<float*>(tile) + d * kBlockTokens + slot;
    for (int i = 0; i < n; ++i) to[i * kBlockTokens] = numbers[i];
    return;
  }
  float padded[16] = {};
  uint16_t halves[16];
  std::copy(numbers.begin(), numbers.end(), padded);
  kernels_.narrow(padded, 16, halves);
  uint16_t* const to =
      reinterpret_cast<uint16_t*>(tile) + d * kBlockTokens + slot;
  for (int i = 0; i < n; ++i) to[i * kBlockTokens] = halves[i];
}

void TiledKvStorage::StoreValue(int layer, int kv_head, int32_t block, int slot,
                                int d, absl::Span<const float> numbers) {
  uint8_t* const tile = Tile(layer, kv_head, block) + tile_bytes_;
  const int at = slot * padded_dim_ + d;
  if (kernels_.narrow == nullptr) {
    std::copy(numbers.begin(), numbers.end(),
              reinterpret_cast<float*>(tile) + at);
    return;
  }
  float padded[16] = {};
  uint16_t halves[16];
  std::copy(numbers.begin(), numbers.end(), padded);
  kernels_.narrow(padded, 16, halves);
  std::copy_n(halves, numbers.size(), reinterpret_cast<uint16_t*>(tile) + at);
}

namespace {

// Copies one token of a tile [head_dim][16] of numbers of type T.
template <class T>
void MoveKey(const uint8_t* from_tile, int from, int head_dim, int to,
             uint8_t* to_tile) {
  const T* const source = reinterpret_cast<const T*>(from_tile) + from;
  T* const target = reinterpret_cast<T*>(to_tile) + to;
  for (int d = 0; d < head_dim; ++d) {
    target[d * kBlockTokens] = source[d * kBlockTokens];
  }
}

}  // namespace

absl::Status TiledKvStorage::MoveSlots(int layer, int kv_head,
                                       absl::Span<const SlotMove> moves) {
  const int64_t width = cache::BytesPerValue(spec_.dtype);
  const auto move_key = width == 4 ? MoveKey<uint32_t> : MoveKey<uint16_t>;
  for (const auto& [from, to] : moves) {
    const uint8_t* const source = Tile(layer, kv_head, from.block);
    uint8_t* const target = Tile(layer, kv_head, to.block);
    move_key(source, from.slot, padded_dim_, to.slot, target);
    const int64_t row = padded_dim_ * width;
    std::memmove(target + tile_bytes_ + to.slot * row,
                 source + tile_bytes_ + from.slot * row, row);
  }
  return absl::OkStatus();
}

float TiledKvStorage::Load(const uint8_t* tile, int index) const {
  if (kernels_.widen == nullptr) {
    return reinterpret_cast<const float*>(tile)[index];
  }
  return kernels_.widen(reinterpret_cast<const uint16_t*>(tile)[index]);
}

absl::Status TiledKvStorage::ReadBlocks(absl::Span<const cache::KvBlock> blocks,
                                        absl::Span<float> out) const {
  float* to = out.data();
  for (const auto [block, value_block] : blocks) {
    for (int layer = 0; layer < spec_.num_layers; ++layer) {
      for (int slot = 0; slot < kBlockTokens; ++slot) {
        for (int head = 0; head < spec_.num_kv_heads; ++head) {
          const uint8_t* const tile = Tile(layer, head, block);
          for (int d = 0; d < spec_.head_dim; ++d) {
            *to++ = Load(tile, d * kBlockTokens + slot);
          }
        }
      }
      for (int slot = 0; slot < kBlockTokens; ++slot) {
        for (int head = 0; head < spec_.num_kv_heads; ++head) {
          const uint8_t* const tile = Tile(layer, head, block) + tile_bytes_;
          for (int d = 0; d < spec_.head_dim; ++d) {
            *to++ = Load(tile, slot * padded_dim_ + d);
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status TiledKvStorage::WriteBlocks(absl::Span<const cache::KvBlock> blocks,
                                         absl::Span<const float> in) {
  const float* from = in.data();
  // The next n numbers, n <= 16.
  const auto next = [&](int n) {
    const absl::Span<const float> numbers(from, n);
    from += n;
    return numbers;
  };
  for (const auto [block, value_block] : blocks) {
    for (int layer = 0; layer < spec_.num_layers; ++layer) {
      for (const bool key : {true, false}) {
        for (int slot = 0; slot < kBlockTokens; ++slot) {
          for (int head = 0; head < spec_.num_kv_heads; ++head) {
            for (int d = 0; d < spec_.head_dim; d += 16) {
              const auto numbers = next(std::min(16, spec_.head_dim - d));
              if (key) {
                StoreKey(layer, head, block, slot, d, numbers);
              } else {
                StoreValue(layer, head, block, slot, d, numbers);
              }
            }
          }
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace millrace::backends::onednn
