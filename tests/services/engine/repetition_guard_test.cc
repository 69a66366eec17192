#include "services/engine/repetition_guard.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/services/engine/engine_harness.h"

namespace millrace::engine {
namespace {

// How many of `ids` it takes until the guard notices; -1 if it never does.
int64_t Notices(int tokens, const std::vector<int32_t>& ids) {
  RecentTokens recent(tokens);
  RepetitionGuard guard(tokens, &recent);
  for (size_t i = 0; i < ids.size(); ++i) {
    recent.Add(ids[i]);
    if (guard.Repeats()) return static_cast<int64_t>(i) + 1;
  }
  return -1;
}

std::vector<int32_t> Cycle(int32_t length, size_t count, int32_t first = 0) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(first + static_cast<int32_t>(i) % length);
  }
  return ids;
}

TEST(RepetitionGuardTest, NoticesOneTokenOverAndOver) {
  EXPECT_EQ(Notices(8, Cycle(1, 100)), 8);
}

TEST(RepetitionGuardTest, NoticesACycleThatFitsFourTimes) {
  EXPECT_EQ(Notices(8, Cycle(2, 100)), 8);
  EXPECT_EQ(Notices(8, Cycle(3, 100)), -1);
  EXPECT_EQ(Notices(512, Cycle(128, 2000)), 512);
  EXPECT_EQ(Notices(512, Cycle(129, 2000)), -1);
  EXPECT_EQ(Notices(512, Cycle(100, 2000)), 512);  // five times, and a part
}

TEST(RepetitionGuardTest, NoticesWhenTheLastOtherTokenIsFarEnoughBack) {
  std::vector<int32_t> ids = {90, 91, 92};
  for (const int32_t id : Cycle(2, 100)) ids.push_back(id);
  EXPECT_EQ(Notices(8, ids), 3 + 8);
}

TEST(RepetitionGuardTest, IsNotFooledByABreakInTheCycle) {
  std::vector<int32_t> ids;
  for (int i = 0; i < 50; ++i) {
    for (const int32_t id : Cycle(2, 7)) ids.push_back(id);
    ids.push_back(50 + i);
  }
  EXPECT_EQ(Notices(8, ids), -1);
}

TEST(RepetitionGuardTest, SeesNothingInRandomText) {
  EXPECT_EQ(Notices(16, Text(1, 20'000)), -1);
}

TEST(RepetitionGuardTest, IsOffAtZero) {
  EXPECT_EQ(Notices(0, Cycle(1, 100)), -1);
}

TEST(RepetitionGuardTest, TakesAnyNumberOfTokensAtOnce) {
  RecentTokens recent(8);
  recent.Add(Cycle(2, 5));
  RepetitionGuard guard(8, &recent);
  EXPECT_FALSE(guard.Repeats());
  recent.Add(Cycle(2, 100, 7));
  EXPECT_TRUE(guard.Repeats());
  recent.Add(Text(1, 100));
  EXPECT_FALSE(guard.Repeats());
}

TEST(RepetitionGuardTest, SeesWhatWasThereBeforeIt) {
  RecentTokens recent(8);
  recent.Add(Cycle(2, 7));
  RepetitionGuard guard(8, &recent);
  recent.Add({1});
  EXPECT_TRUE(guard.Repeats());
}

// Against the definition, on texts that repeat now and then.
TEST(RepetitionGuardTest, EqualsThePlainDefinition) {
  const int n = 12;
  RecentTokens recent(n);
  RepetitionGuard guard(n, &recent);
  std::vector<int32_t> all;
  int repeats = 0;
  for (uint64_t i = 0; i < 20'000; ++i) {
    const uint64_t dice = testing::Mix(i / 16);
    const uint64_t cycle = 1 + dice % 5;
    all.push_back(static_cast<int32_t>(testing::Mix(dice + i % cycle) % 3));
    recent.Add(all.back());
    bool expected = false;
    for (int p = 1; p <= n / 4 && all.size() >= size_t(n); ++p) {
      bool same = true;
      for (size_t j = all.size() - n + p; j < all.size(); ++j) {
        same = same && all[j] == all[j - p];
      }
      expected = expected || same;
    }
    repeats += expected;
    ASSERT_EQ(guard.Repeats(), expected) << i;
  }
  EXPECT_GT(repeats, 500);
  EXPECT_LT(repeats, 15'000);
}

}  // namespace
}  // namespace millrace::engine
