#include "cache/block_allocator.h"

#include <gtest/gtest.h>

namespace millrace::cache {
namespace {

TEST(BlockAllocatorTest, HandsOutTheBlockThatCameBackLast) {
  BlockAllocator allocator(3);
  EXPECT_EQ(allocator.Take(), 0);
  EXPECT_EQ(allocator.Take(), 1);
  allocator.Release(0);
  EXPECT_EQ(allocator.Take(), 0);
  EXPECT_EQ(allocator.Take(), 2);
  EXPECT_EQ(allocator.free_blocks(), 0);
}

TEST(BlockAllocatorTest, ASharedBlockComesBackWithItsLastReference) {
  BlockAllocator allocator(1);
  const int32_t block = allocator.Take();
  allocator.Share(block);
  allocator.Release(block);
  EXPECT_EQ(allocator.free_blocks(), 0);
  allocator.Release(block);
  EXPECT_EQ(allocator.free_blocks(), 1);
}

}  // namespace
}  // namespace millrace::cache
