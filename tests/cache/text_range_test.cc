#include "cache/text_range.h"

#include <gtest/gtest.h>

namespace millrace::cache {
namespace {

using Ranges = std::vector<TextRange>;

TEST(TextRangeTest, IsEmptyFromWhereItEnds) {
  EXPECT_EQ((TextRange{3, 5}).size(), 2);
  EXPECT_TRUE((TextRange{5, 5}).empty());
  EXPECT_EQ((TextRange{6, 5}).size(), 0);
}

TEST(TextRangeTest, WithinKeepsWhatLiesInTheLimits) {
  const Ranges ranges = {{0, 4}, {10, 20}, {30, 40}};
  EXPECT_EQ(Within(ranges, {2, 35}), (Ranges{{2, 4}, {10, 20}, {30, 35}}));
  EXPECT_EQ(Within(ranges, {4, 10}), Ranges{});
  EXPECT_EQ(Within(ranges, {15, 2}), Ranges{});
  EXPECT_EQ(Within(ranges, {0, -7}), Ranges{});
}

TEST(TextRangeTest, SubtractLeavesWhatIsInNoHole) {
  const Ranges text = {{0, 10}, {20, 30}};
  EXPECT_EQ(Subtract(text, {}), text);
  EXPECT_EQ(Subtract(text, {{0, 4}, {6, 7}}),
            (Ranges{{4, 6}, {7, 10}, {20, 30}}));
  EXPECT_EQ(Subtract(text, {{5, 25}}), (Ranges{{0, 5}, {25, 30}}));
  EXPECT_EQ(Subtract(text, {{0, 30}}), Ranges{});
  EXPECT_EQ(Subtract(text, {{10, 20}, {30, 40}}), text);
}

TEST(TextRangeTest, TotalSizeCountsPositions) {
  EXPECT_EQ(TotalSize({}), 0);
  EXPECT_EQ(TotalSize({{0, 4}, {10, int64_t{1} << 40}}),
            (int64_t{1} << 40) - 6);
}

}  // namespace
}  // namespace millrace::cache
