#include "services/engine/pending_tokens.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/testing/fake_model.h"

namespace millrace::engine {
namespace {

std::vector<int32_t> All(const PendingTokens& pending) {
  const absl::Span<const int32_t> ids = pending.First(pending.size());
  return {ids.begin(), ids.end()};
}

TEST(PendingTokensTest, KeepsTheirOrder) {
  PendingTokens pending;
  pending.Append({1, 2, 3}, 0);
  pending.Append({4}, 0);
  pending.RemoveFirst(2);
  EXPECT_EQ(All(pending), (std::vector<int32_t>{3, 4}));
  pending.KeepFirst(1);
  EXPECT_EQ(All(pending), (std::vector<int32_t>{3}));
}

TEST(PendingTokensTest, WaitSinceTheFirstOfThemCame) {
  PendingTokens pending;
  EXPECT_EQ(pending.waiting_since(), 0u);
  pending.Append({1, 2, 3}, 5);
  pending.Append({4, 5}, 9);
  pending.RemoveFirst(2);
  EXPECT_EQ(pending.waiting_since(), 5u);
  pending.RemoveFirst(1);
  EXPECT_EQ(pending.waiting_since(), 9u);
  pending.Append({}, 10);
  pending.RemoveFirst(2);
  EXPECT_TRUE(pending.empty());
  EXPECT_EQ(pending.waiting_since(), 0u);
}

TEST(PendingTokensTest, ForgetTheStepOfTokensThatAreDropped) {
  PendingTokens pending;
  pending.Append({1, 2}, 5);
  pending.Append({3, 4}, 9);
  pending.KeepFirst(1);
  pending.Append({6}, 12);
  pending.RemoveFirst(1);
  EXPECT_EQ(pending.waiting_since(), 12u);
  pending.Clear();
  EXPECT_TRUE(pending.empty());
}

TEST(PendingTokensTest, EqualAPlainListWhateverIsDone) {
  PendingTokens pending;
  std::vector<int32_t> list;
  for (uint64_t step = 0; step < 5000; ++step) {
    const uint64_t dice = testing::Mix(step);
    const int64_t some = static_cast<int64_t>(dice >> 32) % 40;
    const int64_t count = std::min<int64_t>(some, pending.size());
    switch (dice % 4) {
      case 0:
      case 1: {
        const std::vector<int32_t> ids(static_cast<size_t>(some),
                                       static_cast<int32_t>(step));
        pending.Append(ids, step);
        list.insert(list.end(), ids.begin(), ids.end());
        break;
      }
      case 2:
        pending.RemoveFirst(count);
        list.erase(list.begin(), list.begin() + count);
        break;
      case 3:
        pending.KeepFirst(pending.size() - count / 4);
        list.resize(list.size() - static_cast<size_t>(count / 4));
        break;
    }
    ASSERT_EQ(All(pending), list);
    if (!list.empty()) {
      // The ids are the steps at which they came.
      ASSERT_EQ(pending.waiting_since(), static_cast<uint64_t>(list.front()));
    }
  }
}

}  // namespace
}  // namespace millrace::engine
