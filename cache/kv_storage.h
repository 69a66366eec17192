// KvStorage is the memory of keys and values, in blocks of 16 tokens, all
// layers of a token in one block. Each backend implements it: the inside of a
// block belongs to the backend, which blocks are whose to the cache manager.
//
// ReadBlocks and WriteBlocks speak one canonical form, so that a sequence can
// move between backends: per block, for each layer, for each of the 16 tokens,
// for each KV head, head_dim keys; then the same for values. Numbers are F32
// whatever the storage's dtype: what was once rounded to it comes back without
// loss. A wide pair is one block of that form.
//
//   canonical block   [layer][key, value][token][kv_head][head_dim] of float
//
// Not thread-safe: owned by the engine thread.
#ifndef MILLRACE_CACHE_KV_STORAGE_H_
#define MILLRACE_CACHE_KV_STORAGE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cache/kv_block.h"
#include "cache/kv_spec.h"
#include "cache/kv_view.h"

namespace millrace::cache {

class KvStorage {
 public:
  virtual ~KvStorage() = default;

  virtual const KvSpec& spec() const = 0;

  // Blocks are numbered 0 .. num_blocks() - 1.
  virtual int32_t num_blocks() const = 0;

  // Copies the blocks to `out` in the canonical form.
  // REQUIRES: out.size() == blocks.size() * CanonicalBlockValues(spec()).
  virtual absl::Status ReadBlocks(absl::Span<const KvBlock> blocks,
                                  absl::Span<float> out) const = 0;

  // Overwrites the blocks, rounding to the storage's dtype; a wide pair to half
  // precision.
  // REQUIRES: in.size() == blocks.size() * CanonicalBlockValues(spec()).
  virtual absl::Status WriteBlocks(absl::Span<const KvBlock> blocks,
                                   absl::Span<const float> in) = 0;

  // Copies keys and values of one layer and KV head from slot to slot, one move
  // after another, as they are stored: bytes and scales. Slots of one kind.
  // UNIMPLEMENTED on a backend without attention scores, which has no use for
  // it.
  struct SlotMove {
    KvView::Slot from, to;
  };
  virtual absl::Status MoveSlots(int layer, int kv_head,
                                 absl::Span<const SlotMove> moves) {
    return absl::UnimplementedError("move slots: not on this storage");
  }
};

// Numbers in the canonical form of one block.
constexpr int64_t CanonicalBlockValues(const KvSpec& spec) {
  return int64_t{2} * kBlockTokens * spec.num_layers * spec.num_kv_heads *
         spec.head_dim;
}

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_KV_STORAGE_H_
