// Keys and values in the memory of a GPU (kernels/kv_memory.h), all of which is
// taken at once.
#ifndef MILLRACE_BACKENDS_CUDA_KV_STORAGE_H_
#define MILLRACE_BACKENDS_CUDA_KV_STORAGE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backends/cuda/device.h"
#include "cache/kv_storage.h"

namespace millrace::backends::cuda {

// Not thread-safe.
class DeviceKvStorage final : public cache::KvStorage {
 public:
  // RESOURCE_EXHAUSTED if the device has not so much memory.
  static absl::StatusOr<std::unique_ptr<DeviceKvStorage>> Create(
      const cache::KvSpec& spec, int32_t num_blocks,
      std::shared_ptr<Device> device);

  const cache::KvSpec& spec() const override { return spec_; }
  int32_t num_blocks() const override { return num_blocks_; }
  absl::Status ReadBlocks(absl::Span<const cache::KvBlock> blocks,
                          absl::Span<float> out) const override;
  absl::Status WriteBlocks(absl::Span<const cache::KvBlock> blocks,
                           absl::Span<const float> in) override;
  // Moves are collected and carried out before anything else is done with the
  // storage: a cut that moves in each of 90 heads is one launch.
  absl::Status MoveSlots(int layer, int kv_head,
                         absl::Span<const SlotMove> moves) override;

  // Carries out the moves. A step begins with it.
  absl::Status Settle() const;

  const KvMemory& memory() const { return memory_; }

 private:
  DeviceKvStorage(const cache::KvSpec& spec, int32_t num_blocks,
                  std::shared_ptr<Device> device, Memory data, Memory staging,
                  int64_t staging_blocks, Memory move_memory);

  template <class Use>
  absl::Status InPieces(absl::Span<const cache::KvBlock> blocks,
                        const Use& use) const;
  bool HasRoomFor(int layer, int kv_head) const;

  const cache::KvSpec spec_;
  const int32_t num_blocks_;
  const std::shared_ptr<Device> device_;
  const Memory data_;
  // Numbers of [staging_blocks] in the canonical form, then block numbers.
  const Memory staging_;
  const int64_t staging_blocks_;
  const Memory move_memory_;  // lists, then moves
  const KvMemory memory_;
  mutable std::vector<KvMoveList> lists_;  // not yet carried out
  mutable std::vector<KvMove> moves_;
};

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_KV_STORAGE_H_
