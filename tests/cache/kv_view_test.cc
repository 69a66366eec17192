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

}  // namespace
}  // namespace millrace::cache
