// BlockTable says in which block a text position of one sequence lies.
//
// Logical block k holds the text positions [16 k, 16 k + 16). A sequence keeps
// a stretch of logical blocks from 0, which never leaves (its prefix), and one
// that slides (its tail). Each is contiguous here, as KvRun borrows it, and so
// are both together until the tail begins to slide. Neither grows with the
// length of the text.
//
// A wide prefix is of pairs of blocks (kv_block.h), for the tokens of the
// prefix alone: with 20 of them, positions 0 to 19 lie in the pairs 0 and 1,
// and 20 to 31 in the tail's first block, in the slots 4 to 15 of it.
//
// Not thread-safe.
#ifndef MILLRACE_CACHE_BLOCK_TABLE_H_
#define MILLRACE_CACHE_BLOCK_TABLE_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/block_allocator.h"
#include "cache/kv_block.h"
#include "cache/text_range.h"

namespace millrace::cache {

class BlockTable {
 public:
  // The first ceil(prefix_tokens / 16) logical blocks are the prefix.
  // `allocator` is borrowed and outlives the table.
  BlockTable(BlockAllocator* allocator, int64_t prefix_tokens,
             bool wide_prefix = false);
  ~BlockTable();
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  // Takes blocks until every position below `end` that is not evicted has one.
  void ExtendTo(int64_t end);

  // The positions from the prefix's end to `begin` are evicted: gives back the
  // tail blocks in which every position is below `begin`.
  void DropBefore(int64_t begin);

  // Gives back the blocks in which every position is `end` or beyond. What is
  // evicted stays evicted.
  void DropFrom(int64_t end);

  // Gives back the whole tail; the next token behind the prefix is at `begin`.
  void RestartTail(int64_t begin);

  // Gives back all blocks; the next token is at position 0 again.
  void Clear();

  // The blocks of a resident, non-empty range, and the slot of range.begin in
  // the first of them. Once the tail slides, a range lies in the prefix or in
  // the tail as a whole; if the prefix is wide, always. Valid until the next
  // call that is not const.
  absl::Span<const int32_t> Blocks(const TextRange& range) const;

  // The second blocks of the pairs, for a range of a wide prefix; else empty.
  absl::Span<const int32_t> ValueBlocks(const TextRange& range) const;

  // Those of the prefix, then those of the tail, up to position `end`.
  std::vector<KvBlock> BlocksUpTo(int64_t end) const;

  int64_t num_blocks() const {
    return static_cast<int64_t>(blocks_.size() + value_blocks_.size()) - gap_;
  }

 private:
  // Index in blocks_ of the tail's first block.
  int64_t tail_start() const { return prefix_blocks_ + gap_; }
  int64_t tail_blocks() const {
    return std::max<int64_t>(
        0, static_cast<int64_t>(blocks_.size()) - tail_start());
  }
  bool InPrefix(const TextRange& range) const {
    return range.begin < prefix_end_;
  }
  void CloseGap();

  BlockAllocator* const allocator_;
  const bool wide_prefix_;
  const int64_t prefix_blocks_;  // logical
  const int64_t prefix_end_;     // the first text position that is not in them
  // The prefix, then gap_ entries that have been given back, then the tail. The
  // gap is closed up once it is longer than the tail.
  std::vector<int32_t> blocks_;
  std::vector<int32_t> value_blocks_;  // as long as the wide prefix, or empty
  int64_t gap_ = 0;
  int64_t tail_first_;  // logical number of the tail's first block
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_BLOCK_TABLE_H_
