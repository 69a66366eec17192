#include "cache/policies/tova_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "cache/policies/registry.h"
#include "tests/cache/asked_policy.h"
#include "tests/cache/scored_test_policies.h"

namespace millrace::cache {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const CachePolicy> Tova(int64_t budget, int64_t stride,
                                        int64_t sinks, int64_t recent) {
  return *NewTovaPolicy({.budget_tokens = budget,
                         .stride = stride,
                         .sink_tokens = sinks,
                         .recent_tokens = recent},
                        8192);
}

TEST(KeepLargestTest, KeepsBothEndsAndTheLargestBetween) {
  const std::vector<float> numbers = {0, 0.5f, 0.1f, 0.3f, 0.2f, 0, 0};
  EXPECT_EQ(KeepLargest(numbers, 1, 2, 5), (Positions{0, 1, 3, 5, 6}));
  EXPECT_EQ(KeepLargest(numbers, 0, 1, 2), (Positions{1, 6}));
  EXPECT_EQ(KeepLargest(numbers, 2, 3, 5), (Positions{0, 1, 4, 5, 6}));
}

TEST(KeepLargestTest, OfEqualNumbersTheOlderGoes) {
  const std::vector<float> equal = {1, 1, 1, 1, 1, 1};
  EXPECT_EQ(KeepLargest(equal, 1, 1, 4), (Positions{0, 3, 4, 5}));
  EXPECT_EQ(KeepLargest(equal, 0, 1, 1), (Positions{5}));
}

TEST(TovaPolicyTest, DropsWhatTheNewestRowPaysLeastAttentionTo) {
  // Between the sink and the newest: 0.5, 0.2, 0.3, 0.2, 0.05; three stay, and
  // of the equal ones the newer.
  EXPECT_EQ(
      Survivors(*Tova(5, 2, 1, 1), {0.1f, 0.5f, 0.2f, 0.3f, 0.2f, 0.05f, 0.4f}),
      (Positions{0, 1, 3, 4, 6}));
}

TEST(TovaPolicyTest, CutsAtEachMultipleOfTheStride) {
  const auto policy = Tova(5, 4, 1, 1);
  const AttentionScoring& scoring = *policy->scoring();
  EXPECT_EQ(scoring.NextCut({.length = 0}), 4);
  EXPECT_EQ(scoring.NextCut({.length = 7}), 8);
  EXPECT_EQ(scoring.NextCut({.length = 8}), 12);
  EXPECT_TRUE(scoring.CutsAt({.length = 8}));
  EXPECT_FALSE(scoring.CutsAt({.length = 9}));
}

TEST(TovaPolicyTest, OnlyTheRowBeforeACutCounts) {
  const auto policy = Tova(5, 4, 1, 1);
  EXPECT_EQ(Weights(*policy, {.length = 5}, 3), (std::vector<float>{0, 0, 1}));
  EXPECT_EQ(Weights(*policy, {.length = 5}, 2), std::vector<float>{});
  EXPECT_EQ(policy->scoring()->Decay(), 0);
  EXPECT_EQ(policy->traits().scores, ScoreNeed::kLastRow);
  EXPECT_EQ(policy->scoring()->scope(), ScoreScope::kLayer);
}

TEST(TovaPolicyTest, HoldsTheBudgetAndAStride) {
  const auto policy = Tova(1024, 32, 4, 1);
  EXPECT_EQ(policy->MaxResidentTokens(1), 1056);
  EXPECT_EQ(policy->MaxResidentTokens(500), 1056);
  EXPECT_EQ(policy->MaxDistance(), 1055);
  EXPECT_TRUE(policy->traits().unbounded_stream);
  EXPECT_FALSE(policy->traits().chunk_invariant);
}

TEST(TovaPolicyTest, WithTextPositionsTheTextEndsAtTheTrainedContext) {
  const auto policy = *NewTovaPolicy(
      {.budget_tokens = 8, .stride = 2, .text_positions = true}, 100);
  EXPECT_EQ(policy->MaxTextTokens(), 100);
  EXPECT_EQ(policy->MaxDistance(), 99);
  EXPECT_FALSE(policy->traits().unbounded_stream);
  EXPECT_TRUE(policy->scoring()->KeepsTextDistances());
  EXPECT_TRUE(policy->Plan({.length = 95}, 5).ok());
  const absl::Status full = policy->Plan({.length = 95}, 6).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(full.message(), HasSubstr("append 6 tokens to 95"));
  EXPECT_THAT(full.message(), HasSubstr("trained context of 100"));
}

TEST(TovaPolicyTest, TheCanonicalTextSaysEverything) {
  EXPECT_EQ(Asked("tova", /*pinned=*/24)->text,
            "tova:budget_tokens=1024,evict_stride=32,sink_tokens=4,"
            "recent_tokens=1,positions=cache,pin_system_prompt=true,"
            "pin_tokens=0");
  EXPECT_EQ(Asked("tova", 24)->sink_tokens, 24);
  EXPECT_EQ(Asked("tova:pin_system_prompt=false", 24)->sink_tokens, 4);
}

TEST(TovaPolicyTest, RefusesNumbersThatCannotHold) {
  EXPECT_THAT(Refusal("tova:evict_stride=0").message(),
              HasSubstr("evict_stride=0: must be 1 to 8191"));
  EXPECT_THAT(Refusal("tova:evict_stride=8192").message(),
              HasSubstr("evict_stride=8192: must be 1 to 8191"));
  EXPECT_THAT(Refusal("tova:budget_tokens=0").message(),
              HasSubstr("budget_tokens=0: must be 1 to 8160"));
  EXPECT_THAT(Refusal("tova:budget_tokens=8161").message(),
              HasSubstr("less evict_stride=32"));
  EXPECT_THAT(Refusal("tova:recent_tokens=0").message(),
              HasSubstr("recent_tokens=0: must be 1 or more"));
  EXPECT_THAT(Refusal("tova:budget_tokens=4").message(),
              HasSubstr("budget_tokens=4: must be at least sink_tokens=4 + "
                        "recent_tokens=1"));
  EXPECT_THAT(Refusal("tova:budget_tokens=20", 20).message(),
              HasSubstr("at least pinned tokens=20 + recent_tokens=1"));
  EXPECT_THAT(Refusal("tova:positions=both").message(),
              HasSubstr("must be cache or text"));
  EXPECT_THAT(Refusal("tova:budget_tokens=5000").message(),
              HasSubstr("a session may hold 5000"));
}

}  // namespace
}  // namespace millrace::cache
