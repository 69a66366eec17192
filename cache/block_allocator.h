// BlockAllocator hands out the block numbers of one KvStorage.
//
// A block is taken with one reference, shared with more, and back in the pool
// when the last one goes. Deterministic: the block that came back last is
// handed out first, so a small set of blocks stays warm.
//
// Not thread-safe.
#ifndef MILLRACE_CACHE_BLOCK_ALLOCATOR_H_
#define MILLRACE_CACHE_BLOCK_ALLOCATOR_H_

#include <cstdint>
#include <vector>

namespace millrace::cache {

class BlockAllocator {
 public:
  // REQUIRES: num_blocks >= 0.
  explicit BlockAllocator(int32_t num_blocks);

  // Takes a free block.
  // REQUIRES: free_blocks() > 0.
  int32_t Take();

  // Adds a reference to a taken block.
  void Share(int32_t block);

  // Drops a reference to a taken block.
  void Release(int32_t block);

  int32_t num_blocks() const { return static_cast<int32_t>(holders_.size()); }
  int32_t free_blocks() const { return static_cast<int32_t>(free_.size()); }

 private:
  std::vector<int32_t> holders_;  // [num_blocks]
  std::vector<int32_t> free_;     // a stack
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_BLOCK_ALLOCATOR_H_
