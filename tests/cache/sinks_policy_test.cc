#include "cache/policies/sinks_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "tests/cache/asked_policy.h"
#include "tests/cache/told_sequence.h"

namespace millrace::cache {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kContext = 8192;

std::shared_ptr<const CachePolicy> Sinks(int64_t s, int64_t r, int64_t p = 0) {
  return *NewSinksPolicy(
      {.sink_tokens = s, .window_tokens = r, .pinned_tokens = p}, kContext);
}

TEST(SinksPolicyTest, KeepsSinksWhileTheWindowSlides) {
  ToldSequence sequence(Sinks(4, 8));
  ASSERT_TRUE(sequence.Decode(13).ok());
  EXPECT_EQ(sequence.Resident(), "[0,13)");  // just full
  ASSERT_TRUE(sequence.Decode(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[5,14)");  // the first to go is no sink
  ASSERT_TRUE(sequence.Decode(99'999).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[100004,100013)");
}

TEST(SinksPolicyTest, AChunkKeepsWhatItsFirstRowSees) {
  ToldSequence sequence(Sinks(4, 8));
  ASSERT_TRUE(sequence.Append(64).ok());
  EXPECT_EQ(sequence.Resident(), "[0,64)");
  ASSERT_TRUE(sequence.Append(64).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[56,128)");
  ASSERT_TRUE(sequence.Decode(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[120,129)");
}

TEST(SinksPolicyTest, PinnedPromptReplacesFewerSinks) {
  ToldSequence sequence(Sinks(4, 8, 6));
  ASSERT_TRUE(sequence.Decode(40).ok());
  EXPECT_EQ(sequence.Resident(), "[0,6)[31,40)");
  EXPECT_EQ(Sinks(6, 8, 4)->traits().protected_prefix, 6);
}

TEST(SinksPolicyTest, TheBoundsAreThoseOfTheNumbers) {
  EXPECT_EQ(Sinks(4, 1020)->MaxResidentTokens(1), 1025);
  EXPECT_EQ(Sinks(4, 1020)->MaxResidentTokens(64), 1088);
  EXPECT_EQ(Sinks(4, 1020)->MaxDistance(), 1024);
  EXPECT_EQ(Sinks(4, 1020, 100)->MaxDistance(), 1120);
  EXPECT_TRUE(Sinks(4, 1020)->traits().unbounded_stream);
}

TEST(SinksPolicyTest, WritesThePinnedTokensAsACount) {
  EXPECT_EQ(Sinks(4, 8, 6)->ToString(),
            "sinks:sink_tokens=4,window_tokens=8,pin_system_prompt=false,"
            "pin_tokens=6");
}

// Visibility and distance as StreamingLLM defines them, apart from Rules.
TEST(SinksPolicyTest, SeesWhatThePaperSays) {
  for (const int64_t f : {0, 1, 4, 17}) {
    for (const int64_t r : {1, 8, 30}) {
      const auto policy = Sinks(f, r);
      for (int64_t t = 0; t < 3 * (f + r); ++t) {
        int64_t seen = 0;
        for (const RunRule& rule : policy->Rules(t)) {
          for (int64_t j = rule.FirstVisible(t); j <= t && j < rule.end; ++j) {
            ASSERT_TRUE(j < f || j >= t - r);
            ASSERT_EQ(rule.QueryPosition(t) - j,
                      j < f ? std::min(t, f + r) - j : t - j);
            ++seen;
          }
        }
        ASSERT_EQ(seen, std::min(t + 1, f + r + 1));
      }
    }
  }
}

TEST(SinksPolicyTest, EvictsBeyond32BitsWhatItEvictsBefore) {
  for (const int64_t length : {int64_t{100}, (int64_t{1} << 32) + 3}) {
    const std::vector<TextRange> resident = {{0, 4}, {length - 20, length}};
    const auto plan = Sinks(4, 8)->Plan(
        {.length = length, .first_row = length - 5, .resident = resident}, 1);
    EXPECT_EQ(plan->evict,
              (std::vector<TextRange>{{length - 20, length - 13}}));
  }
}

TEST(SinksPolicyTest, RefusesAnEmptyWindowAndNegativeCounts) {
  const auto message = [](const SinksOptions& options) {
    const auto policy = NewSinksPolicy(options, kContext);
    EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(policy.status().message());
  };
  EXPECT_EQ(message({.window_tokens = 0}),
            "window_tokens=0: must be 1 or more");
  EXPECT_EQ(message({.sink_tokens = -1}), "sink_tokens=-1: must be 0 or more");
  EXPECT_EQ(message({.pinned_tokens = -1}), "pin_tokens=-1: must be 0 or more");
}

// Sessions of 5,000 tokens, of which 64 are in flight.
TEST(SinksPolicyTest, ProtectedTokensMayTakeTheMemoryOfTwo) {
  const auto fits = [](absl::string_view text, bool wide) {
    return Asked(text, /*pinned=*/0, wide).status();
  };
  EXPECT_TRUE(fits("sinks:sink_tokens=36,window_tokens=4900", false).ok());
  EXPECT_TRUE(fits("sinks:sink_tokens=36,window_tokens=4864", true).ok());
  EXPECT_THAT(
      fits("sinks:sink_tokens=36,window_tokens=4865", true).message(),
      HasSubstr("holds up to 4965 tokens, of which 64 are chunk and rollback "
                "and 36 count twice; a session may hold 5000"));
}

TEST(SinksPolicyTest, RefusesMoreThanTheTrainedContext) {
  const auto policy = NewSinksPolicy({.window_tokens = 9000}, kContext);
  EXPECT_EQ(
      policy.status().message(),
      "window_tokens=9000 + sink_tokens=4 + 1 exceeds the model's trained "
      "context of 8192");
  EXPECT_TRUE(NewSinksPolicy({.window_tokens = 8187}, kContext).ok());
  EXPECT_FALSE(NewSinksPolicy({.window_tokens = 8188}, kContext).ok());
  EXPECT_FALSE(NewSinksPolicy({.window_tokens = INT64_MAX}, kContext).ok());
  const auto pinned =
      NewSinksPolicy({.window_tokens = 92, .pinned_tokens = 8100}, kContext);
  EXPECT_THAT(pinned.status().message(), HasSubstr("pinned tokens=8100 + 1"));
}

}  // namespace
}  // namespace millrace::cache
