#include "cache/policies/reprefill_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/cache/asked_policy.h"
#include "tests/cache/told_sequence.h"

namespace millrace::cache {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kContext = 8192;

std::shared_ptr<const CachePolicy> Reprefill(int64_t r, int64_t e,
                                             int64_t pinned = 0) {
  return *NewReprefillPolicy(
      {.window_tokens = r, .rebuild_every = e, .pinned_tokens = pinned},
      kContext);
}

TEST(ReprefillPolicyTest, TheWindowMovesOnBySeveralAtOnce) {
  ToldSequence sequence(Reprefill(10, 4));
  ASSERT_TRUE(sequence.Decode(11).ok());
  EXPECT_EQ(sequence.Resident(), "[0,11)");  // just full
  ASSERT_TRUE(sequence.Decode(1).ok());
  EXPECT_EQ(sequence.Resident(), "[4,12)");
  ASSERT_TRUE(sequence.Decode(3).ok());
  EXPECT_EQ(sequence.Resident(), "[4,15)");  // full again
  ASSERT_TRUE(sequence.Decode(1).ok());
  EXPECT_EQ(sequence.Resident(), "[8,16)");
}

TEST(ReprefillPolicyTest, WhatIsStillSeenIsComputedAnew) {
  const auto policy = Reprefill(10, 4);
  EXPECT_EQ(policy->Recomputes(10), (TextRange{0, 0}));
  EXPECT_EQ(policy->Recomputes(11), (TextRange{4, 11}));
  EXPECT_EQ(policy->Recomputes(14), (TextRange{4, 11}));
  EXPECT_EQ(policy->Recomputes(15), (TextRange{8, 15}));
  EXPECT_EQ(Reprefill(10, 1)->Recomputes(15), (TextRange{5, 15}));
}

TEST(ReprefillPolicyTest, RebuildingGoesBackToTheWindowsBeginning) {
  ToldSequence sequence(Reprefill(10, 4, 3));
  CacheManager& manager = sequence.manager();
  ASSERT_TRUE(sequence.Decode(14).ok());
  EXPECT_EQ(manager.Rebuild(sequence.id(), 13), 14);  // nothing to do
  EXPECT_EQ(manager.Rebuild(sequence.id(), 14), 7);
  EXPECT_EQ(sequence.Resident(), "[0,3)");
  EXPECT_EQ(manager.MaxChunk(sequence.id()), 11);  // [7,18), all one stage
}

TEST(ReprefillPolicyTest, ALongInputIsSkippedTo) {
  ToldSequence sequence(Reprefill(10, 4, 3));
  CacheManager& manager = sequence.manager();
  // The prefix first.
  EXPECT_EQ(manager.Rebuild(sequence.id(), 1'000'000), 0);
  EXPECT_EQ(manager.MaxChunk(sequence.id()), 3);
  ASSERT_TRUE(sequence.Append(3).ok());
  EXPECT_EQ(manager.Rebuild(sequence.id(), 1'000'000), 999'991);
  EXPECT_EQ(manager.MaxChunk(sequence.id()), 11);
}

TEST(ReprefillPolicyTest, AnyCutIsExactSinceAllIsComputedAnew) {
  ToldSequence sequence(Reprefill(10, 4));
  CacheManager& manager = sequence.manager();
  ASSERT_TRUE(sequence.Decode(100).ok());
  EXPECT_EQ(manager.EarliestCut(sequence.id()), 0);
  ASSERT_TRUE(manager.Truncate(sequence.id(), 50).ok());
  EXPECT_EQ(manager.Rebuild(sequence.id(), 50), 40);
  ASSERT_TRUE(sequence.Decode(11).ok());
  EXPECT_EQ(sequence.Resident(), "[40,51)");
}

TEST(ReprefillPolicyTest, KeptTokensComeNearerByWhatIsSkipped) {
  const auto rules = Reprefill(10, 4, 3)->Rules(15);  // sees [7, 15]
  ASSERT_EQ(rules.size(), 2u);
  EXPECT_EQ(rules[0].QueryPosition(15) - 2, 9);  // one before the window
  EXPECT_EQ(rules[1].QueryPosition(15) - 7, 8);
}

TEST(ReprefillPolicyTest, HoldsNoMoreWhateverComesAtOnce) {
  EXPECT_EQ(Reprefill(1024, 512)->MaxResidentTokens(1), 1025);
  EXPECT_EQ(Reprefill(1024, 1, 100)->MaxResidentTokens(500), 1125);
  EXPECT_EQ(Reprefill(1024, 1, 100)->MaxDistance(), 1124);
}

TEST(ReprefillPolicyTest, MovesByHalfAWindowUnlessTold) {
  const auto made = Asked("reprefill");
  EXPECT_EQ(made->text,
            "reprefill:window_tokens=1024,rebuild_every=512,"
            "pin_system_prompt=true,pin_tokens=0");
}

TEST(ReprefillPolicyTest, RefusesNumbersThatCannotHold) {
  EXPECT_THAT(Refusal("reprefill:window_tokens=0").message(),
              HasSubstr("window_tokens=0: must be 1 or more"));
  EXPECT_THAT(Refusal("reprefill:window_tokens=8192").message(),
              HasSubstr("trained context of 8192"));
  EXPECT_THAT(Refusal("reprefill:window_tokens=8000", 192).message(),
              HasSubstr("pinned tokens=192"));
  EXPECT_THAT(Refusal("reprefill:window_tokens=5000").message(),
              HasSubstr("a session may hold 5000"));
  for (const char* bad : {"0", "11"}) {
    EXPECT_THAT(
        Refusal(absl::StrCat("reprefill:window_tokens=10,rebuild_every=", bad))
            .message(),
        HasSubstr("must be 1 to window_tokens=10"));
  }
}

}  // namespace
}  // namespace millrace::cache
