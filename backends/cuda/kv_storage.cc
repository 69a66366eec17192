#include "backends/cuda/kv_storage.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"

namespace millrace::backends::cuda {
namespace {

// Numbers on their way to or from the host, but at least a block.
constexpr int64_t kStagingBytes = 4 << 20;

// Moves that are collected: heads, and slots of each, 3 MB.
constexpr int kLists = 128;
constexpr size_t kMovesOfList = 1024;
constexpr int64_t kMoveBytes =
    kLists * int64_t{sizeof(KvMoveList) + kMovesOfList * sizeof(KvMove)};

int64_t CanonicalBytes(const cache::KvSpec& spec) {
  return CanonicalBlockValues(spec) * int64_t{sizeof(float)};
}

// Of all blocks; the largest number there is if that does not fit one.
int64_t StorageBytes(const cache::KvSpec& spec, int32_t num_blocks) {
  int64_t bytes = 2 * KvMemoryOf(spec, nullptr).tile_bytes;
  for (const int factor : {spec.num_layers, spec.num_kv_heads, num_blocks}) {
    if (__builtin_mul_overflow(bytes, int64_t{factor}, &bytes)) {
      return std::numeric_limits<int64_t>::max();
    }
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceKvStorage>> DeviceKvStorage::Create(
    const cache::KvSpec& spec, int32_t num_blocks,
    std::shared_ptr<Device> device) {
  absl::StatusOr<Memory> data =
      device->Allocate(StorageBytes(spec, num_blocks),
                       absl::StrCat("KV storage of ", num_blocks, " blocks"));
  if (!data.ok()) return data.status();
  const int64_t staging_blocks =
      std::max<int64_t>(1, kStagingBytes / CanonicalBytes(spec));
  absl::StatusOr<Memory> staging = device->Allocate(
      staging_blocks * (CanonicalBytes(spec) + 2 * int64_t{sizeof(int32_t)}),
      "staging of keys and values");
  if (!staging.ok()) return staging.status();
  absl::StatusOr<Memory> moves = device->Allocate(kMoveBytes, "moves of slots");
  if (!moves.ok()) return moves.status();
  return std::unique_ptr<DeviceKvStorage>(new DeviceKvStorage(
      spec, num_blocks, std::move(device), *std::move(data),
      *std::move(staging), staging_blocks, *std::move(moves)));
}

DeviceKvStorage::DeviceKvStorage(const cache::KvSpec& spec, int32_t num_blocks,
                                 std::shared_ptr<Device> device, Memory data,
                                 Memory staging, int64_t staging_blocks,
                                 Memory move_memory)
    : spec_(spec),
      num_blocks_(num_blocks),
      device_(std::move(device)),
      data_(std::move(data)),
      staging_(std::move(staging)),
      staging_blocks_(staging_blocks),
      move_memory_(std::move(move_memory)),
      memory_(KvMemoryOf(spec_, data_.get())) {}

// Calls use(args, index of the first block) for pieces that the staging memory
// holds, with the numbers of their blocks uploaded.
template <class Use>
absl::Status DeviceKvStorage::InPieces(absl::Span<const cache::KvBlock> blocks,
                                       const Use& use) const {
  absl::Status status = Settle();
  auto* const numbers = reinterpret_cast<float*>(staging_.get());
  auto* const ids = reinterpret_cast<int32_t*>(
      numbers + staging_blocks_ * CanonicalBlockValues(spec_));
  for (size_t first = 0; first < blocks.size() && status.ok();) {
    const auto piece = blocks.subspan(first, staging_blocks_);
    std::vector<int32_t> numbers_of_blocks;
    for (const cache::KvBlock& block : piece) {
      numbers_of_blocks.push_back(block.block);
      numbers_of_blocks.push_back(block.value_block);
    }
    device_->Copy(
        ids, numbers_of_blocks.data(),
        static_cast<int64_t>(numbers_of_blocks.size() * sizeof(int32_t)));
    use({.kv = memory_,
         .blocks = ids,
         .num_blocks = static_cast<int>(piece.size()),
         .numbers = numbers},
        first);
    status = device_->Synchronize();
    first += piece.size();
  }
  return status;
}

absl::Status DeviceKvStorage::ReadBlocks(
    absl::Span<const cache::KvBlock> blocks, absl::Span<float> out) const {
  return InPieces(blocks, [&](const KvBlocksArgs& args, size_t first) {
    device_->kernels().read_blocks(device_->stream(), args);
    device_->Copy(&out[first * CanonicalBlockValues(spec_)], args.numbers,
                  args.num_blocks * CanonicalBytes(spec_));
  });
}

absl::Status DeviceKvStorage::WriteBlocks(
    absl::Span<const cache::KvBlock> blocks, absl::Span<const float> in) {
  return InPieces(blocks, [&](const KvBlocksArgs& args, size_t first) {
    device_->Copy(args.numbers, &in[first * CanonicalBlockValues(spec_)],
                  args.num_blocks * CanonicalBytes(spec_));
    device_->kernels().write_blocks(device_->stream(), args);
  });
}

absl::Status DeviceKvStorage::MoveSlots(int layer, int kv_head,
                                        absl::Span<const SlotMove> moves) {
  for (size_t first = 0; first < moves.size(); first += kMovesOfList) {
    if (!HasRoomFor(layer, kv_head)) {
      const absl::Status settled = Settle();
      if (!settled.ok()) return settled;
    }
    const auto begin = static_cast<int32_t>(moves_.size());
    for (const auto& [from, to] : moves.subspan(first, kMovesOfList)) {
      moves_.push_back({from.block, from.value_block, from.slot, to.block,
                        to.value_block, to.slot});
    }
    lists_.push_back(
        {layer, kv_head, begin, static_cast<int32_t>(moves_.size())});
  }
  return absl::OkStatus();
}

// Lists are carried out at once, so that a head has one of them at most.
bool DeviceKvStorage::HasRoomFor(int layer, int kv_head) const {
  if (static_cast<int>(lists_.size()) == kLists) return false;
  return absl::c_none_of(lists_, [&](const KvMoveList& list) {
    return list.layer == layer && list.kv_head == kv_head;
  });
}

absl::Status DeviceKvStorage::Settle() const {
  if (lists_.empty()) return absl::OkStatus();
  uint8_t* const lists = move_memory_.get();
  uint8_t* const moves = lists + kLists * sizeof(KvMoveList);
  device_->Copy(lists, lists_.data(), lists_.size() * sizeof(KvMoveList));
  device_->Copy(moves, moves_.data(), moves_.size() * sizeof(KvMove));
  device_->kernels().move_slots(device_->stream(),
                                {.kv = memory_,
                                 .lists = reinterpret_cast<KvMoveList*>(lists),
                                 .num_lists = static_cast<int>(lists_.size()),
                                 .moves = reinterpret_cast<KvMove*>(moves)});
  lists_.clear();
  moves_.clear();
  return device_->Synchronize();
}

}  // namespace millrace::backends::cuda
