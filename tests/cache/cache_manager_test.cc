#include "cache/cache_manager.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "cache/policies/sinks_policy.h"
#include "cache/visibility_ledger.h"

namespace millrace::cache {
namespace {

std::shared_ptr<const CachePolicy> Sinks() {
  return *NewSinksPolicy({.sink_tokens = 4, .window_tokens = 60}, 8192);
}

// 4 + 60 + 16 + 8 tokens: 1 block of prefix, ceil(83 / 16) + 1 of tail.
SequenceOptions Options() {
  return {.policy = Sinks(), .max_chunk_tokens = 16, .rollback_tokens = 8};
}

void Append(CacheManager& manager, SequenceId id, int tokens) {
  for (; tokens > 0; tokens -= 16) {
    ASSERT_TRUE(manager.Reserve(id, std::min(tokens, 16)).ok());
    manager.Commit(id);
  }
}

TEST(CacheManagerTest, OpenReservesTheMostASequenceCanHold) {
  EXPECT_EQ(MaxBlocks(Options()), 8);
  CacheManager manager(KvSpec{}, 15);
  ASSERT_TRUE(manager.Open(Options()).ok());
  EXPECT_EQ(manager.stats().reserved_blocks, 8);
  const absl::Status refused = manager.Open(Options()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(refused.message(), "policy 'sinks' needs "));
}

TEST(CacheManagerTest, CutsAsFarAsTheRollbackHold) {
  CacheManager manager(KvSpec{}, 8);
  const SequenceId id = *manager.Open(Options());
  Append(manager, id, 1000);
  const int64_t earliest = manager.EarliestCut(id);
  EXPECT_LE(earliest, 1000 - 8);
  const absl::Status refused = manager.Truncate(id, earliest - 1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(manager.Length(id), 1000);
  EXPECT_TRUE(manager.Truncate(id, earliest).ok());
  EXPECT_EQ(manager.Length(id), earliest);
}

TEST(CacheManagerTest, ClearKeepsTheReservationAndCloseReturnsIt) {
  CacheManager manager(KvSpec{}, 8);
  const SequenceId id = *manager.Open(Options());
  Append(manager, id, 1000);
  manager.Clear(id);
  EXPECT_EQ(manager.stats().used_blocks, 0);
  EXPECT_EQ(manager.stats().reserved_blocks, 8);
  Append(manager, id, 10);
  EXPECT_EQ(manager.ResidentTokens(id), 10);
  manager.Close(id);
  EXPECT_EQ(manager.stats().used_blocks, 0);
  EXPECT_EQ(manager.stats().reserved_blocks, 0);
}

TEST(VisibilityLedgerTest, CountsPositionsBeyond32Bits) {
  VisibilityLedger ledger(Sinks());
  const int64_t length = (int64_t{1} << 32) + 5;
  ledger.Advance(length);
  const VisibilityChange change = ledger.Advance(length + 3);
  // Row n - 1 sees 60 tokens before itself.
  ASSERT_EQ(change.evicted.size(), 1u);
  EXPECT_EQ(change.evicted[0], (TextRange{length - 61, length - 58}));
  EXPECT_EQ(ledger.VisibleTokens(length), 65);
  EXPECT_EQ(ledger.Advance(length).restored, change.evicted);
}

}  // namespace
}  // namespace millrace::cache
