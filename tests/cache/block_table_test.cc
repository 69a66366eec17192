#include "cache/block_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "cache/block_allocator.h"

namespace millrace::cache {
namespace {

std::vector<int32_t> Blocks(const BlockTable& table, TextRange range) {
  const absl::Span<const int32_t> blocks = table.Blocks(range);
  return {blocks.begin(), blocks.end()};
}

// Regression test: with 4 prefix tokens the window [4, 40) begins in the
// prefix's block and goes on in the tail's, which lay elsewhere.
TEST(BlockTableTest, APrefixAndATailThatHasNotMovedAreContiguous) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/4);
  table.ExtendTo(40);
  const std::vector<int32_t> all = Blocks(table, {0, 40});
  EXPECT_EQ(all.size(), 3u);
  EXPECT_EQ(Blocks(table, {4, 40}), all);
  EXPECT_EQ(Blocks(table, {16, 40}), std::vector(all.begin() + 1, all.end()));
}

TEST(BlockTableTest, TheTailSlidesAndThePrefixStays) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/20);
  table.ExtendTo(100);
  EXPECT_EQ(table.num_blocks(), 7);
  const std::vector<int32_t> all = Blocks(table, {0, 100});
  for (const int64_t begin : {33, 48, 63, 64, 96}) {
    table.DropBefore(begin);
    EXPECT_EQ(Blocks(table, {0, 20}),
              std::vector(all.begin(), all.begin() + 2));
    EXPECT_EQ(Blocks(table, {begin, 100}),
              std::vector(all.begin() + begin / 16, all.end()));
    EXPECT_EQ(table.num_blocks(), 2 + 7 - begin / 16);
    EXPECT_EQ(allocator.free_blocks(), 10 - table.num_blocks());
  }
}

TEST(BlockTableTest, NeverHoldsMoreThanItKeepsHoweverLongTheText) {
  BlockAllocator allocator(6);
  BlockTable table(&allocator, /*prefix_tokens=*/4);
  for (int64_t end = 1; end < 10'000; ++end) {
    table.DropBefore(std::max<int64_t>(4, end - 40));
    table.ExtendTo(end);
    ASSERT_LE(table.num_blocks(), 5);
  }
  table.DropFrom(9'970);
  EXPECT_EQ(table.num_blocks(), 1 + 2);
  table.Clear();
  EXPECT_EQ(allocator.free_blocks(), 6);
  table.ExtendTo(33);
  EXPECT_EQ(Blocks(table, {4, 33}).size(), 3u);
}

TEST(BlockTableTest, ACutGivesBackTheEnd) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/20);
  table.ExtendTo(100);
  const std::vector<int32_t> all = Blocks(table, {0, 100});
  table.DropFrom(33);
  EXPECT_EQ(Blocks(table, {0, 33}), std::vector(all.begin(), all.begin() + 3));
  table.DropFrom(16);
  EXPECT_EQ(table.num_blocks(), 1);
  table.ExtendTo(50);
  EXPECT_EQ(Blocks(table, {0, 50}).size(), 4u);
  EXPECT_EQ(Blocks(table, {0, 50}).front(), all.front());
}

TEST(BlockTableTest, TakesNoBlocksForWhatIsEvictedAlready) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/4);
  table.ExtendTo(4);
  table.DropBefore(1000);  // block 62 holds [992, 1008)
  table.ExtendTo(1010);
  EXPECT_EQ(table.num_blocks(), 1 + 2);
  EXPECT_EQ(Blocks(table, {1000, 1010}).size(), 2u);
}

TEST(BlockTableTest, ACutOfTheWholeTailGoesOnWhereItWas) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/4);
  table.ExtendTo(100);
  table.DropBefore(64);
  table.DropFrom(64);
  EXPECT_EQ(table.num_blocks(), 1);
  table.ExtendTo(70);
  EXPECT_EQ(table.num_blocks(), 2);
  EXPECT_EQ(Blocks(table, {64, 70}).size(), 1u);
}

TEST(BlockTableTest, SlidesAcrossPosition2To32) {
  constexpr int64_t kEdge = int64_t{1} << 32;
  BlockAllocator allocator(6);
  BlockTable table(&allocator, /*prefix_tokens=*/4);
  table.ExtendTo(4);
  const std::vector<int32_t> prefix = Blocks(table, {0, 4});
  table.DropBefore(kEdge - 1000);
  for (int64_t end = kEdge - 999; end < kEdge + 1000; ++end) {
    table.DropBefore(std::max(kEdge - 1000, end - 40));
    table.ExtendTo(end);
    ASSERT_LE(table.num_blocks(), 1 + 4);
  }
  EXPECT_EQ(Blocks(table, {0, 4}), prefix);
  const TextRange last = {kEdge + 960, kEdge + 999};
  const std::vector<int32_t> tail = Blocks(table, last);
  EXPECT_EQ(tail.size(), 3u);
  table.DropFrom(kEdge + 976);
  EXPECT_EQ(Blocks(table, {kEdge + 960, kEdge + 976}),
            std::vector<int32_t>{tail[0]});
}

std::vector<int32_t> ValueBlocks(const BlockTable& table, TextRange range) {
  const absl::Span<const int32_t> blocks = table.ValueBlocks(range);
  return {blocks.begin(), blocks.end()};
}

// Numbers are handed out from 0.
TEST(WidePrefixTest, FourTokensTakeAPairAndTheRestOfTheirBlockANumberOfItsOwn) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/4, /*wide_prefix=*/true);
  table.ExtendTo(3);
  EXPECT_EQ(table.num_blocks(), 2);
  table.ExtendTo(4);
  EXPECT_EQ(table.num_blocks(), 2);
  table.ExtendTo(20);
  EXPECT_EQ(table.num_blocks(), 4);
  EXPECT_EQ(Blocks(table, {0, 4}), std::vector<int32_t>({0}));
  EXPECT_EQ(ValueBlocks(table, {0, 4}), std::vector<int32_t>({1}));
  EXPECT_EQ(Blocks(table, {4, 20}), std::vector<int32_t>({2, 3}));
  EXPECT_EQ(ValueBlocks(table, {4, 20}), std::vector<int32_t>());
}

TEST(WidePrefixTest, SixteenTokensEndWithTheirPair) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/16, /*wide_prefix=*/true);
  table.ExtendTo(16);
  EXPECT_EQ(table.num_blocks(), 2);
  table.ExtendTo(17);
  EXPECT_EQ(table.num_blocks(), 3);
  EXPECT_EQ(Blocks(table, {0, 16}), std::vector<int32_t>({0}));
  EXPECT_EQ(ValueBlocks(table, {0, 16}), std::vector<int32_t>({1}));
  EXPECT_EQ(Blocks(table, {16, 17}), std::vector<int32_t>({2}));
}

TEST(WidePrefixTest, TwentyTokensTakeTwoPairs) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/20, /*wide_prefix=*/true);
  table.ExtendTo(40);
  EXPECT_EQ(table.num_blocks(), 4 + 2);  // [16, 32) and [32, 48)
  EXPECT_EQ(Blocks(table, {0, 20}), std::vector<int32_t>({0, 2}));
  EXPECT_EQ(ValueBlocks(table, {0, 20}), std::vector<int32_t>({1, 3}));
  EXPECT_EQ(ValueBlocks(table, {16, 20}), std::vector<int32_t>({3}));
  EXPECT_EQ(Blocks(table, {20, 40}), std::vector<int32_t>({4, 5}));
}

TEST(WidePrefixTest, StaysWhileTheTailSlides) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/20, /*wide_prefix=*/true);
  table.ExtendTo(100);  // 2 pairs, and the blocks 1 to 6
  EXPECT_EQ(table.num_blocks(), 4 + 6);
  for (const int64_t begin : {31, 32, 63, 64, 96}) {
    table.DropBefore(begin);
    EXPECT_EQ(table.num_blocks(), 4 + 7 - begin / 16);
    EXPECT_EQ(Blocks(table, {0, 20}), std::vector<int32_t>({0, 2}));
    EXPECT_EQ(ValueBlocks(table, {0, 20}), std::vector<int32_t>({1, 3}));
    EXPECT_EQ(Blocks(table, {begin, 100}).back(), 9);
    EXPECT_EQ(allocator.free_blocks(), 10 - table.num_blocks());
  }
}

TEST(WidePrefixTest, ACutIntoThePrefixGivesBackBothOfAPair) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/20, /*wide_prefix=*/true);
  table.ExtendTo(40);
  table.DropFrom(21);
  EXPECT_EQ(table.num_blocks(), 4 + 1);
  table.DropFrom(20);  // no token is left in the block of [20, 32)
  EXPECT_EQ(table.num_blocks(), 4);
  table.DropFrom(17);
  EXPECT_EQ(table.num_blocks(), 4);
  table.DropFrom(16);
  EXPECT_EQ(table.num_blocks(), 2);
  EXPECT_EQ(ValueBlocks(table, {0, 16}), std::vector<int32_t>({1}));
  table.Clear();
  EXPECT_EQ(allocator.free_blocks(), 10);
}

TEST(WidePrefixTest, OutlivesATailThatStartsAnew) {
  BlockAllocator allocator(10);
  BlockTable table(&allocator, /*prefix_tokens=*/20, /*wide_prefix=*/true);
  table.ExtendTo(100);
  table.RestartTail(90);
  EXPECT_EQ(table.num_blocks(), 4);
  table.ExtendTo(97);  // [80, 96) and [96, 112)
  EXPECT_EQ(table.num_blocks(), 4 + 2);
  EXPECT_EQ(ValueBlocks(table, {0, 20}), std::vector<int32_t>({1, 3}));
  table.RestartTail(20);
  table.ExtendTo(33);
  EXPECT_EQ(Blocks(table, {20, 33}).size(), 2u);
}

TEST(BlockTableTest, ReturnsItsBlocksWhenItGoes) {
  BlockAllocator allocator(10);
  {
    BlockTable table(&allocator, /*prefix_tokens=*/20);
    table.ExtendTo(100);
    table.DropBefore(70);
    EXPECT_LT(allocator.free_blocks(), 10);
  }
  EXPECT_EQ(allocator.free_blocks(), 10);
}

}  // namespace
}  // namespace millrace::cache
