#include "cache/visibility_ledger.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "cache/policies/full_policy.h"
#include "cache/policies/sinks_policy.h"

namespace millrace::cache {
namespace {

using Ranges = std::vector<TextRange>;

// 12 tokens and a window of 60: row n - 1 sees 73 tokens, itself included.
VisibilityLedger Ledger() {
  return VisibilityLedger(
      *NewSinksPolicy({.sink_tokens = 12, .window_tokens = 60}, 8192));
}

TEST(VisibilityLedgerTest, AnnouncesEachEvictionOnce) {
  VisibilityLedger ledger = Ledger();
  EXPECT_TRUE(ledger.Advance(73).empty());
  EXPECT_EQ(ledger.Advance(74).evicted, (Ranges{{12, 13}}));
  EXPECT_TRUE(ledger.Advance(74).empty());
  EXPECT_EQ(ledger.Advance(105).evicted, (Ranges{{13, 44}}));
}

TEST(VisibilityLedgerTest, RestoresWhatIsVisibleAgainAfterACut) {
  VisibilityLedger ledger = Ledger();
  ledger.Advance(105);
  const VisibilityChange cut = ledger.Advance(100);
  EXPECT_TRUE(cut.evicted.empty());
  EXPECT_EQ(cut.restored, (Ranges{{39, 44}}));
  EXPECT_EQ(ledger.Advance(105).evicted, (Ranges{{39, 44}}));
  EXPECT_EQ(ledger.Advance(73).restored, (Ranges{{12, 44}}));
}

TEST(VisibilityLedgerTest, RestoresWhatACutTakesAway) {
  VisibilityLedger ledger = Ledger();
  ledger.Advance(200);  // evicted [12, 139)
  EXPECT_EQ(ledger.Advance(80).restored, (Ranges{{19, 139}}));
  EXPECT_EQ(ledger.Advance(0).restored, (Ranges{{12, 19}}));
  EXPECT_TRUE(ledger.Advance(73).empty());
}

TEST(VisibilityLedgerTest, StartsAnewAfterAReset) {
  VisibilityLedger ledger = Ledger();
  ledger.Advance(105);
  ledger.Reset();
  EXPECT_TRUE(ledger.Advance(73).empty());
  EXPECT_EQ(ledger.Advance(105).evicted, (Ranges{{12, 44}}));
}

TEST(VisibilityLedgerTest, CountsFollowFromTheLengthAlone) {
  const VisibilityLedger ledger = Ledger();
  EXPECT_EQ(ledger.VisibleTokens(0), 0);
  EXPECT_EQ(ledger.EvictedTokens(0), 0);
  EXPECT_EQ(ledger.VisibleTokens(73), 73);
  EXPECT_EQ(ledger.VisibleTokens(332), 73);
  EXPECT_EQ(ledger.EvictedTokens(332), 259);
}

TEST(VisibilityLedgerTest, OfAFullCacheHasNothingToSay) {
  VisibilityLedger ledger(*NewFullPolicy({.max_tokens = 8192}, 8192));
  EXPECT_TRUE(ledger.Advance(8192).empty());
  EXPECT_TRUE(ledger.Advance(10).empty());
  EXPECT_EQ(ledger.VisibleTokens(8192), 8192);
}

TEST(VisibilityLedgerTest, CountsPositionsBeyond32Bits) {
  VisibilityLedger ledger = Ledger();
  const int64_t length = (int64_t{1} << 32) + 5;
  EXPECT_EQ(ledger.Advance(length).evicted, (Ranges{{12, length - 61}}));
  const Ranges three = {{length - 61, length - 58}};
  EXPECT_EQ(ledger.Advance(length + 3).evicted, three);
  EXPECT_EQ(ledger.Advance(length).restored, three);
  EXPECT_EQ(ledger.VisibleTokens(length), 73);
  EXPECT_EQ(ledger.EvictedTokens(length), length - 73);
}

}  // namespace
}  // namespace millrace::cache
