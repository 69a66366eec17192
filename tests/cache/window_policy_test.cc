#include "cache/policies/window_policy.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "cache/policies/sinks_policy.h"
#include "tests/cache/told_sequence.h"

namespace millrace::cache {
namespace {

constexpr int64_t kContext = 8192;

std::shared_ptr<const CachePolicy> Window(int64_t r) {
  return *NewWindowPolicy({.window_tokens = r}, kContext);
}

TEST(WindowPolicyTest, KeepsTheNewestTokens) {
  ToldSequence sequence(Window(8));
  ASSERT_TRUE(sequence.Decode(9).ok());
  EXPECT_EQ(sequence.Resident(), "[0,9)");  // just full: 8 and the token itself
  ASSERT_TRUE(sequence.Decode(1).ok());
  EXPECT_EQ(sequence.Resident(), "[1,10)");
  ASSERT_TRUE(sequence.Append(64).ok());
  EXPECT_EQ(sequence.Resident(), "[2,74)");  // row 10 sees 2 to 10
  ASSERT_TRUE(sequence.Decode(1).ok());
  EXPECT_EQ(sequence.Resident(), "[66,75)");
}

TEST(WindowPolicyTest, IsOneRunAtTextDistances) {
  EXPECT_EQ(Window(8)->Rules(100), (std::vector<RunRule>{{.window = 8}}));
  EXPECT_EQ(VisibleRanges(Window(8)->Rules(100), 100),
            (std::vector<TextRange>{{92, 101}}));
  EXPECT_EQ(Window(8)->Rules(100)[0].QueryPosition(100), 100);
}

TEST(WindowPolicyTest, SeesWhatSinksWithoutSinksSee) {
  const auto sinks =
      *NewSinksPolicy({.sink_tokens = 0, .window_tokens = 30}, kContext);
  EXPECT_EQ(Window(30)->Rules(1000), sinks->Rules(1000));
  EXPECT_EQ(Window(30)->MaxResidentTokens(64), sinks->MaxResidentTokens(64));
  EXPECT_EQ(Window(30)->MaxDistance(), sinks->MaxDistance());
}

TEST(WindowPolicyTest, TheBoundsAreThoseOfTheNumbers) {
  EXPECT_EQ(Window(1024)->MaxResidentTokens(1), 1025);
  EXPECT_EQ(Window(1024)->MaxResidentTokens(64), 1088);
  EXPECT_EQ(Window(1024)->MaxDistance(), 1024);
  EXPECT_EQ(Window(1024)->traits().protected_prefix, 0);
  EXPECT_EQ(Window(1024)->ToString(), "window:window_tokens=1024");
}

TEST(WindowPolicyTest, RefusesAnEmptyWindowAndMoreThanTheTrainedContext) {
  EXPECT_EQ(NewWindowPolicy({0}, kContext).status(),
            absl::InvalidArgumentError("window_tokens=0: must be 1 or more"));
  EXPECT_EQ(NewWindowPolicy({8192}, kContext).status(),
            absl::InvalidArgumentError("window_tokens=8192 + 1 exceeds the "
                                       "model's trained context of 8192"));
  EXPECT_TRUE(NewWindowPolicy({8191}, kContext).ok());
}

}  // namespace
}  // namespace millrace::cache
