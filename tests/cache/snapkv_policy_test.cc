#include "cache/policies/snapkv_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "cache/policies/registry.h"
#include "tests/cache/asked_policy.h"
#include "tests/cache/scored_test_policies.h"

namespace millrace::cache {
namespace {

using ::testing::HasSubstr;

// N = 6, E = 5, W = 2.
std::shared_ptr<const CachePolicy> Snapkv(int64_t kernel) {
  return *NewSnapkvPolicy({.scored = {.budget_tokens = 6,
                                      .stride = 5,
                                      .sink_tokens = 1,
                                      .recent_tokens = 2},
                           .pool_kernel = kernel},
                          8192);
}

TEST(SnapkvPolicyTest, ATokenSharesInItsNeighboursVotes) {
  const std::vector<float> votes = {0, 0, 0, 0, 9, 0, 0, 4, 0, 0};
  EXPECT_EQ(Survivors(*Snapkv(1), votes), (Positions{0, 4, 6, 7, 8, 9}));
  // Means of three: 0 0 0 3 3 3 4/3 4/3 4/3 0.
  EXPECT_EQ(Survivors(*Snapkv(3), votes), (Positions{0, 3, 4, 5, 8, 9}));
}

TEST(SnapkvPolicyTest, OutsideTheCacheThereAreNoVotes) {
  const auto policy = *NewSnapkvPolicy({.scored = {.budget_tokens = 2,
                                                   .stride = 3,
                                                   .sink_tokens = 0,
                                                   .recent_tokens = 1},
                                        .pool_kernel = 3},
                                       8192);
  // Means: (6 + 0) / 3 at 0, (6 + 0 + 1) / 3 at 1, (0 + 1 + 0) / 3 at 2.
  EXPECT_EQ(Survivors(*policy, {6, 0, 1, 0}), (Positions{1, 3}));
}

TEST(SnapkvPolicyTest, InputIsCutAtItsEndOrWhenTheCacheIsFull) {
  const auto policy = Snapkv(1);
  const AttentionScoring& choice = *policy->scoring();
  EXPECT_EQ(choice.NextCut({.length = 20, .resident = 6, .input_end = 23}), 23);
  EXPECT_EQ(choice.NextCut({.length = 20, .resident = 6, .input_end = 90}), 25);
  EXPECT_EQ(
      choice.NextCut({.length = 20, .resident = 6, .input_end = kUnlimited}),
      25);
  EXPECT_EQ(choice.NextCut({.length = 20, .resident = 6, .input_end = 20}),
            kUnlimited);
  EXPECT_TRUE(choice.CutsAt({.length = 23, .resident = 9, .input_end = 23}));
  EXPECT_TRUE(choice.CutsAt({.length = 25, .resident = 11, .input_end = 90}));
  EXPECT_FALSE(choice.CutsAt({.length = 24, .resident = 10, .input_end = 90}));
  EXPECT_FALSE(choice.CutsAt({.length = 24, .resident = 7, .input_end = 23}));
}

TEST(SnapkvPolicyTest, TheLastRowsOfInputVoteAndNoneThatIsWritten) {
  const auto policy = Snapkv(1);
  const ScoredState reads{.length = 20, .resident = 6, .input_end = 24};
  EXPECT_EQ(Weights(*policy, reads, 4), (std::vector<float>{0, 0, 1, 1}));
  EXPECT_EQ(Weights(*policy, reads, 2), std::vector<float>{});
  EXPECT_EQ(Weights(*policy, {.length = 23, .resident = 9, .input_end = 24}, 1),
            std::vector<float>{1});
  EXPECT_EQ(Weights(*policy, {.length = 24, .resident = 6, .input_end = 24}, 1),
            std::vector<float>{});
  EXPECT_EQ(policy->scoring()->HeldBackTokens(), 2);
  EXPECT_TRUE(policy->scoring()->RestartsAtCut());
}

TEST(SnapkvPolicyTest, WritingEndsWhereANextInputCouldStillVote) {
  const auto policy = Snapkv(1);
  EXPECT_EQ(policy->scoring()->MostWhileWriting(), 6 + 5 - 2);
  const TextRange eight[] = {{0, 8}};
  SequenceView view{.length = 30, .resident = eight, .input_end = 20};
  EXPECT_TRUE(policy->Plan(view, 1).ok());
  const absl::Status full = policy->Plan(view, 2).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(full.message(), HasSubstr("write 2 tokens behind 8"));
  EXPECT_THAT(full.message(), HasSubstr("holds 9"));
  view.input_end = 40;  // what is read is compressed
  EXPECT_TRUE(policy->Plan(view, 2).ok());
  EXPECT_FALSE(policy->traits().unbounded_stream);
}

TEST(SnapkvPolicyTest, TheCanonicalTextSaysEverything) {
  EXPECT_EQ(Asked("snapkv")->text,
            "snapkv:budget_tokens=1024,segment_tokens=1024,sink_tokens=4,"
            "vote_window=64,pool_kernel=5,positions=cache,on_full=stop,"
            "pin_system_prompt=true,pin_tokens=0");
  EXPECT_EQ(Asked("snapkv:on_full=error")->on_full, OnFull::kError);
  EXPECT_EQ(Asked("snapkv")->on_full, OnFull::kStop);
}

TEST(SnapkvPolicyTest, RefusesNumbersThatCannotHold) {
  EXPECT_THAT(Refusal("snapkv:segment_tokens=64").message(),
              HasSubstr("segment_tokens=64: must be more than vote_window=64"));
  EXPECT_THAT(Refusal("snapkv:pool_kernel=4").message(),
              HasSubstr("pool_kernel=4: must be odd"));
  EXPECT_THAT(Refusal("snapkv:pool_kernel=0").message(),
              HasSubstr("pool_kernel=0"));
  EXPECT_THAT(Refusal("snapkv:vote_window=0").message(),
              HasSubstr("vote_window=0: must be 1 or more"));
  EXPECT_THAT(Refusal("snapkv:budget_tokens=67").message(),
              HasSubstr("sink_tokens=4 + vote_window=64"));
  EXPECT_THAT(Refusal("snapkv:budget_tokens=7169").message(),
              HasSubstr("must be 1 to 7168"));
  EXPECT_THAT(ParsePolicy("snapkv:evict_stride=4").status().message(),
              HasSubstr("'snapkv' has no option 'evict_stride'"));
}

}  // namespace
}  // namespace millrace::cache
