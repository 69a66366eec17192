#include "services/engine/sampling/recent_tokens.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace millrace::engine {
namespace {

// Newest first.
std::string Remembered(const RecentTokens& recent) {
  std::string text;
  for (int64_t age = 0; age < recent.size(); ++age) {
    absl::StrAppend(&text, text.empty() ? "" : " ", recent.Last(age));
  }
  return text;
}

TEST(RecentTokensTest, RemembersTheLastOnes) {
  RecentTokens recent(3);
  EXPECT_EQ(Remembered(recent), "");
  recent.Add({1, 2});
  EXPECT_EQ(Remembered(recent), "2 1");
  recent.Add({3, 4, 5});
  EXPECT_EQ(Remembered(recent), "5 4 3");
  EXPECT_EQ(recent.total(), 5);
}

TEST(RecentTokensTest, ForgetsWhatWasCutOff) {
  RecentTokens recent(3);
  recent.Add({1, 2, 3, 4, 5});
  recent.RemoveLast(1);
  EXPECT_EQ(Remembered(recent), "4 3");
  EXPECT_EQ(recent.total(), 4);
  recent.Add({6, 7});
  EXPECT_EQ(Remembered(recent), "7 6 4");
  recent.RemoveLast(100);
  EXPECT_EQ(Remembered(recent), "");
  EXPECT_EQ(recent.total(), 0);
  recent.Add({8});
  EXPECT_EQ(Remembered(recent), "8");
}

TEST(RecentTokensTest, KeepsWhatItHasWhenItGrows) {
  RecentTokens recent(3);
  recent.Add({1, 2, 3, 4});
  recent.Grow(5);
  EXPECT_EQ(Remembered(recent), "4 3 2");
  recent.Add({5, 6, 7});
  EXPECT_EQ(Remembered(recent), "7 6 5 4 3");
  recent.Grow(2);
  EXPECT_EQ(recent.capacity(), 5);
}

TEST(RecentTokensTest, RemembersNothingWithoutCapacity) {
  RecentTokens recent;
  recent.Add({1, 2});
  recent.RemoveLast(1);
  EXPECT_EQ(recent.size(), 0);
  EXPECT_EQ(recent.total(), 1);
  recent.Grow(2);
  recent.Add({3});
  EXPECT_EQ(Remembered(recent), "3");
}

}  // namespace
}  // namespace millrace::engine
