#include "cache/block_allocator.h"

#include <cassert>
#include <cstdlib>

namespace millrace::cache {

BlockAllocator::BlockAllocator(int32_t num_blocks) : holders_(num_blocks, 0) {
  free_.reserve(num_blocks);
  for (int32_t block = num_blocks - 1; block >= 0; --block) {
    free_.push_back(block);
  }
}

int32_t BlockAllocator::Take() {
  // Admission promised this block: to go on would corrupt another sequence.
  if (free_.empty()) std::abort();
  const int32_t block = free_.back();
  free_.pop_back();
  holders_[block] = 1;
  return block;
}

void BlockAllocator::Share(int32_t block) {
  assert(holders_[block] > 0);
  ++holders_[block];
}

void BlockAllocator::Release(int32_t block) {
  assert(holders_[block] > 0);
  if (--holders_[block] == 0) free_.push_back(block);
}

}  // namespace millrace::cache
