#include "cache/kv_view.h"

#include <gtest/gtest.h>

#include "cache/cache_policy.h"

namespace millrace::cache {
namespace {

// Four sinks and a window of 1020, as StreamingLLM writes "4+1020".
const std::vector<RunRule> kSinks = {{.begin = 0, .end = 4, .query_cap = 1024},
                                     {.begin = 4, .window = 1020}};

TEST(RunRuleTest, TheQueryPositionForSinksSaturates) {
  EXPECT_EQ(kSinks[0].QueryPosition(1024), 1024);
  EXPECT_EQ(kSinks[0].QueryPosition(5'000'000), 1024);
  EXPECT_EQ(kSinks[1].QueryPosition(5'000'000), 5'000'000);
}

TEST(VisibleRangesTest, SinksAndWindowPartWhenTheWindowIsFull) {
  EXPECT_EQ(VisibleRanges(kSinks, 1024), (std::vector<TextRange>{{0, 1025}}));
  EXPECT_EQ(VisibleRanges(kSinks, 1025),
            (std::vector<TextRange>{{0, 4}, {5, 1026}}));
}

TEST(KvViewTest, FindsTheSlotOfAPosition) {
  const std::vector<int32_t> sinks = {7}, window = {3, 9};
  const KvView view{{KvRun{.rule = kSinks[0], .length = 4, .blocks = sinks},
                     KvRun{.rule = kSinks[1],
                           .first_position = (int64_t{1} << 32) + 12,
                           .length = 20,
                           .first_slot = 12,
                           .blocks = window}}};
  EXPECT_EQ(view.Find(3).block, 7);
  EXPECT_EQ(view.Find(3).slot, 3);
  EXPECT_EQ(view.Find((int64_t{1} << 32) + 15).block, 3);
  EXPECT_EQ(view.Find((int64_t{1} << 32) + 15).slot, 15);
  EXPECT_EQ(view.Find((int64_t{1} << 32) + 31).block, 9);
  EXPECT_EQ(view.Find((int64_t{1} << 32) + 31).slot, 15);
}

TEST(RunRuleTest, AWindowReachesNoFurtherBackThanItsRun) {
  EXPECT_EQ(kSinks[1].FirstVisible(1023), 4);
  EXPECT_EQ(kSinks[1].FirstVisible(1024), 4);
  EXPECT_EQ(kSinks[1].FirstVisible(1025), 5);
  EXPECT_EQ(kSinks[0].FirstVisible(5'000'000'000), 0);
}

}  // namespace
}  // namespace millrace::cache
