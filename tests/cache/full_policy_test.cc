#include "cache/policies/full_policy.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/cache/told_sequence.h"

namespace millrace::cache {
namespace {

constexpr int64_t kContext = 8192;

std::shared_ptr<const CachePolicy> Full(int64_t max_tokens) {
  return *NewFullPolicy({.max_tokens = max_tokens}, kContext);
}

TEST(FullPolicyTest, KeepsEverything) {
  ToldSequence sequence(Full(100));
  ASSERT_TRUE(sequence.Append(60).ok());
  EXPECT_EQ(sequence.Resident(), "[0,60)");
  ASSERT_TRUE(sequence.Decode(40).ok());
  EXPECT_EQ(sequence.Resident(), "[0,100)");
  EXPECT_EQ(sequence.manager().stats().evicted_tokens, 0);
}

TEST(FullPolicyTest, RefusesWhatDoesNotFitAndChangesNothing) {
  ToldSequence sequence(Full(100));
  ASSERT_TRUE(sequence.Append(60).ok());
  EXPECT_EQ(sequence.Append(41),
            absl::FailedPreconditionError(
                "append 41 tokens: policy 'full' has room for 40 of 100; open "
                "it with a bounded policy, such as 'sinks'"));
  EXPECT_EQ(sequence.Resident(), "[0,60)");
  EXPECT_TRUE(sequence.Append(40).ok());
  EXPECT_FALSE(sequence.Append(1).ok());
}

TEST(FullPolicyTest, HasRoomAgainAfterACut) {
  ToldSequence sequence(Full(100));
  ASSERT_TRUE(sequence.Append(100).ok());
  EXPECT_EQ(sequence.manager().EarliestCut(sequence.id()), 0);
  ASSERT_TRUE(sequence.manager().Truncate(sequence.id(), 70).ok());
  EXPECT_TRUE(sequence.Append(30).ok());
}

TEST(FullPolicyTest, EveryRowSeesAllBeforeItAtTextDistances) {
  EXPECT_EQ(VisibleRanges(Full(100)->Rules(99), 99),
            (std::vector<TextRange>{{0, 100}}));
  EXPECT_EQ(Full(100)->Rules(99)[0].QueryPosition(99), 99);
  EXPECT_EQ(Full(100)->MaxDistance(), 99);
  EXPECT_EQ(Full(100)->MaxResidentTokens(64), 100);
  EXPECT_FALSE(Full(100)->traits().unbounded_stream);
}

TEST(FullPolicyTest, GoesBeyondTheTrainedContextOnlyWhenTold) {
  EXPECT_EQ(NewFullPolicy({.max_tokens = 8193}, kContext).status(),
            absl::InvalidArgumentError("max_tokens=8193 exceeds the model's "
                                       "trained context of 8192"));
  EXPECT_EQ(NewFullPolicy({.max_tokens = 0}, kContext).status(),
            absl::InvalidArgumentError("max_tokens=0: must be 1 or more"));
  const auto beyond = *NewFullPolicy(
      {.max_tokens = 8193, .allow_beyond_trained_context = true}, kContext);
  EXPECT_EQ(beyond->ToString(),
            "full:max_tokens=8193,allow_beyond_trained_context=true");
}

}  // namespace
}  // namespace millrace::cache
