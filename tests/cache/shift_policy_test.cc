#include "cache/policies/shift_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "cache/policies/registry.h"
#include "tests/cache/asked_policy.h"
#include "tests/cache/told_sequence.h"

namespace millrace::cache {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kContext = 8192;

std::shared_ptr<const CachePolicy> Shift(int64_t c, int64_t keep, int64_t d,
                                         int64_t pinned = 0) {
  return *NewShiftPolicy({.context_tokens = c,
                          .n_keep = keep,
                          .n_discard = d,
                          .pinned_tokens = pinned},
                         kContext);
}

TEST(ShiftPolicyTest, DropsSeveralAtOnceWhenTheContextIsFull) {
  ToldSequence sequence(Shift(16, 4, 6));
  ASSERT_TRUE(sequence.Decode(16).ok());
  EXPECT_EQ(sequence.Resident(), "[0,16)");  // just full
  ASSERT_TRUE(sequence.Decode(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[10,17)");
  ASSERT_TRUE(sequence.Decode(5).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[10,22)");  // full again
  ASSERT_TRUE(sequence.Decode(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[16,23)");
}

TEST(ShiftPolicyTest, AChunkEndsWhereTokensAreDropped) {
  const auto policy = Shift(16, 4, 6);
  EXPECT_EQ(policy->NextCut(0), 16);
  EXPECT_EQ(policy->NextCut(15), 16);
  EXPECT_EQ(policy->NextCut(16), 22);
  EXPECT_EQ(policy->NextCut(21), 22);
  ToldSequence sequence(policy);
  EXPECT_EQ(sequence.manager().MaxChunk(sequence.id()), 16);
  ASSERT_TRUE(sequence.Append(100).ok());
  // k = 1 + floor((99 - 16) / 6) = 14 shifts, 84 tokens.
  EXPECT_EQ(sequence.Resident(), "[0,4)[88,100)");
}

TEST(ShiftPolicyTest, KeptTokensComeNearerByWhatIsDropped) {
  const auto rules = Shift(16, 4, 6)->Rules(20);
  ASSERT_EQ(rules.size(), 2u);
  EXPECT_EQ(rules[0].QueryPosition(20) - 3, 11);   // 20 - 6 - 3
  EXPECT_EQ(rules[1].QueryPosition(20) - 10, 10);  // the first behind them
}

TEST(ShiftPolicyTest, DroppingOneAtATimeIsSinksAndAWindow) {
  ToldSequence shift(Shift(64, 4, 1));
  ToldSequence sinks(
      MakePolicy({"sinks", {{"sink_tokens", "4"}, {"window_tokens", "59"}}},
                 {.trained_context = kContext,
                  .max_resident_tokens = kContext,
                  .extra_tokens = 1})
          ->policy);
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(shift.Decode(1).ok());
    ASSERT_TRUE(sinks.Decode(1).ok());
    ASSERT_EQ(shift.Resident(), sinks.Resident());
  }
}

TEST(ShiftPolicyTest, PinnedPromptReplacesFewerKeptTokens) {
  ToldSequence sequence(Shift(16, 4, 6, 7));
  ASSERT_TRUE(sequence.Decode(17).ok());
  EXPECT_EQ(sequence.Resident(), "[0,7)[13,17)");
}

TEST(ShiftPolicyTest, ACutGoesBackOverAShiftThatTheHoldCovers) {
  ToldSequence sequence(Shift(16, 4, 6), /*chunk=*/64, /*rollback=*/3);
  ASSERT_TRUE(sequence.Decode(18).ok());
  EXPECT_EQ(sequence.Resident(), "[0,18)");  // row 15 may still come again
  ASSERT_TRUE(sequence.manager().Truncate(sequence.id(), 15).ok());
  ASSERT_TRUE(sequence.Decode(10).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[10,25)");
}

TEST(ShiftPolicyTest, DiscardsHalfOfWhatIsNotKeptUnlessTold) {
  const auto made = Asked("shift", /*pinned=*/24);
  EXPECT_EQ(made->text,
            "shift:context_tokens=1024,n_keep=4,n_discard=500,"
            "pin_system_prompt=true,pin_tokens=0");
  EXPECT_EQ(made->sink_tokens, 24);
}

TEST(ShiftPolicyTest, RefusesNumbersThatCannotHold) {
  EXPECT_THAT(Refusal("shift:context_tokens=1").message(),
              HasSubstr("context_tokens=1: must be 2 to"));
  EXPECT_THAT(Refusal("shift:context_tokens=8193").message(),
              HasSubstr("trained context of 8192"));
  EXPECT_THAT(Refusal("shift:context_tokens=5000").message(),
              HasSubstr("a session may hold 5000"));
  EXPECT_THAT(Refusal("shift:context_tokens=16,n_keep=15").message(),
              HasSubstr("n_keep=15: must be 0 to context_tokens=16 - 2"));
  EXPECT_THAT(Refusal("shift:context_tokens=16", 20).message(),
              HasSubstr("pinned tokens=20"));
  EXPECT_THAT(Refusal("shift:context_tokens=16,n_discard=12").message(),
              HasSubstr("n_discard=12: must be 1 to context_tokens=16 - 4"));
  EXPECT_THAT(Refusal("shift:n_discard=0").message(), HasSubstr("n_discard=0"));
}

}  // namespace
}  // namespace millrace::cache
