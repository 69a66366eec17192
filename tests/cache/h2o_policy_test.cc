#include "cache/policies/h2o_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "cache/policies/registry.h"
#include "tests/cache/asked_policy.h"
#include "tests/cache/scored_test_policies.h"

namespace millrace::cache {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const CachePolicy> H2o(double decay) {
  return *NewH2oPolicy({.scored = {.budget_tokens = 6,
                                   .stride = 3,
                                   .sink_tokens = 1,
                                   .recent_tokens = 2},
                        .decay = decay},
                       8192);
}

TEST(H2oPolicyTest, EveryRowCountsAndOlderOnesLess) {
  const auto policy = H2o(0.5);
  EXPECT_EQ(Weights(*policy, {.length = 7}, 2), (std::vector<float>{1, 1}));
  EXPECT_EQ(policy->scoring()->Decay(), 0.5f);
  EXPECT_FALSE(policy->scoring()->RestartsAtCut());
  EXPECT_EQ(policy->traits().scores, ScoreNeed::kAccumulated);
  EXPECT_EQ(policy->scoring()->HeldBackTokens(), 0);
}

TEST(H2oPolicyTest, KeepsTheFirstTheNewestAndTheHeaviest) {
  EXPECT_EQ(Survivors(*H2o(1), {0, 2, 3, 2, 1, 4, 0, 9, 0}),
            (Positions{0, 2, 3, 5, 7, 8}));
}

TEST(H2oPolicyTest, OnlyADecayBelowOneIsForATextWithoutEnd) {
  EXPECT_FALSE(H2o(1)->traits().unbounded_stream);
  EXPECT_TRUE(H2o(0.999)->traits().unbounded_stream);
}

TEST(H2oPolicyTest, TheCanonicalTextSaysEverything) {
  EXPECT_EQ(Asked("h2o")->text,
            "h2o:budget_tokens=1024,evict_stride=32,sink_tokens=4,"
            "recent_tokens=512,decay=0.999,scope=head,positions=cache,"
            "pin_system_prompt=true,pin_tokens=0");
  EXPECT_THAT(Asked("h2o:scope=layer,decay=1,positions=text")->text,
              HasSubstr("decay=1,scope=layer,positions=text"));
  EXPECT_EQ(Asked("h2o:scope=layer")->policy->scoring()->scope(),
            ScoreScope::kLayer);
  EXPECT_EQ(Asked("h2o")->window_tokens, 512);
}

TEST(H2oPolicyTest, RefusesNumbersThatCannotHold) {
  EXPECT_THAT(Refusal("h2o:decay=0").message(),
              HasSubstr("decay=0: must be above 0, and at most 1"));
  EXPECT_THAT(Refusal("h2o:decay=1.5").message(), HasSubstr("decay=1.5"));
  EXPECT_FALSE(Refusal("h2o:decay=nan").ok());
  EXPECT_FALSE(Refusal("h2o:decay=much").ok());
  EXPECT_EQ(Refusal("h2o:decay=2").GetPayload("millrace/field"), "decay");
  EXPECT_THAT(Refusal("h2o:scope=model").message(),
              HasSubstr("must be head or layer"));
  EXPECT_THAT(Refusal("h2o:budget_tokens=515").message(),
              HasSubstr("budget_tokens=515: must be at least sink_tokens=4 + "
                        "recent_tokens=512"));
  EXPECT_TRUE(Asked("h2o:budget_tokens=516").ok());
}

}  // namespace
}  // namespace millrace::cache
