#include "cache/cache_manager.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>

#include "cache/policies/full_policy.h"
#include "cache/policies/sinks_policy.h"
#include "tests/cache/told_sequence.h"

namespace millrace::cache {
namespace {

std::shared_ptr<const CachePolicy> Sinks(int64_t s, int64_t r) {
  return *NewSinksPolicy({.sink_tokens = s, .window_tokens = r}, 8192);
}

// 4 + 60 + 16 + 8 tokens: 1 block of prefix, ceil(83 / 16) + 1 of tail.
SequenceOptions Options() {
  return {.policy = Sinks(4, 60), .max_chunk_tokens = 16, .rollback_tokens = 8};
}

// 2 * 2 bytes * 30 layers * 3 heads * 64 numbers: 22.5 KiB a token.
constexpr KvSpec kSpec{.num_layers = 30, .num_kv_heads = 3, .head_dim = 64};

TEST(CacheManagerTest, OpenReservesTheMostASequenceCanHold) {
  EXPECT_EQ(MaxBlocks(Options(), KvDtype::kF16), 8);
  CacheManager manager(kSpec, 15);
  ASSERT_TRUE(manager.Open(Options()).ok());
  EXPECT_EQ(manager.stats().reserved_blocks, 8);
  EXPECT_EQ(manager.stats().used_blocks, 0);
  // A block is 16 * 23,040 = 368,640 bytes: 8 are wanted, 7 of 15 are free.
  EXPECT_EQ(manager.Open(Options()).status(),
            absl::ResourceExhaustedError(
                "open a sequence: policy 'sinks' needs 2949120 bytes of K/V "
                "memory, 2580480 of 5529600 are free"));
  EXPECT_EQ(manager.stats().sequences, 1);
}

TEST(CacheManagerTest, WhatOneSequenceReturnsAnotherMayReserve) {
  CacheManager manager(kSpec, 15);
  const SequenceId first = *manager.Open(Options());
  manager.Close(first);
  const SequenceId second = *manager.Open(Options());
  EXPECT_NE(first, second);
  EXPECT_EQ(manager.stats().reserved_blocks, 8);
}

TEST(CacheManagerTest, ATailThatBeginsInsideABlockNeedsOneMore) {
  const auto blocks = [](int64_t sinks, int64_t window, int64_t chunk) {
    return MaxBlocks(
        {.policy = Sinks(sinks, window), .max_chunk_tokens = chunk},
        KvDtype::kF16);
  };
  EXPECT_EQ(blocks(0, 1, 1), 2);    // 2 tokens, perhaps on both sides
  EXPECT_EQ(blocks(0, 16, 1), 2);   // 17 tokens touch two blocks at most
  EXPECT_EQ(blocks(0, 17, 1), 3);   // 18 tokens: 1 + 16 + 1
  EXPECT_EQ(blocks(16, 16, 1), 3);  // and a block of sinks
  EXPECT_EQ(blocks(17, 16, 1), 4);
}

TEST(CacheManagerTest, AWidePrefixCountsTwice) {
  const auto blocks = [](int64_t sinks, int64_t window) {
    return MaxBlocks({.policy = Sinks(sinks, window), .max_chunk_tokens = 1},
                     KvDtype::kInt8);
  };
  EXPECT_EQ(blocks(0, 16), 2);   // no prefix: as any other dtype
  EXPECT_EQ(blocks(4, 16), 4);   // a pair, and 17 tokens of tail
  EXPECT_EQ(blocks(16, 16), 4);  // a pair still
  EXPECT_EQ(blocks(20, 16), 6);  // two
  // 2 * 30 layers * 3 heads * (64 bytes and a scale): 12,240 a token. Four
  // sinks with 60 + 16 + 8 others: a pair, and ceil(83 / 16) + 1 = 7.
  KvSpec spec = kSpec;
  spec.dtype = KvDtype::kInt8;
  CacheManager manager(spec, 8);
  EXPECT_EQ(manager.Open(Options()).status(),
            absl::ResourceExhaustedError(
                "open a sequence: policy 'sinks' needs 1762560 bytes of K/V "
                "memory, 1566720 of 1566720 are free"));
}

TEST(CacheManagerTest, ProtectedTokensAreWideAndTheirNeighboursAreNot) {
  ToldSequence sequence(Sinks(20, 60), /*chunk=*/64, /*rollback=*/0,
                        KvDtype::kInt8);
  ASSERT_TRUE(sequence.Append(40).ok());
  CacheManager& manager = sequence.manager();
  // [0, 16) and [16, 20) are pairs, [20, 32) and [32, 40) blocks.
  EXPECT_EQ(manager.stats().used_blocks, 4 + 2);
  const KvView view = manager.View(sequence.id());
  ASSERT_EQ(view.runs.size(), 2u);
  EXPECT_TRUE(view.runs[0].wide());
  EXPECT_EQ(view.runs[0].value_blocks.size(), 2u);
  EXPECT_FALSE(view.runs[1].wide());
  EXPECT_TRUE(view.Find(19).kv_block().wide());
  EXPECT_FALSE(view.Find(20).kv_block().wide());
  EXPECT_EQ(view.Find(20).slot, 4);
  EXPECT_NE(view.Find(20).block, view.Find(19).block);
  ASSERT_TRUE(manager.Truncate(sequence.id(), 20).ok());
  EXPECT_EQ(manager.stats().used_blocks, 4);
  ASSERT_TRUE(manager.Truncate(sequence.id(), 16).ok());
  EXPECT_EQ(manager.stats().used_blocks, 2);
}

TEST(CacheManagerTest, EvictsBeforeItAppends) {
  ToldSequence sequence(Sinks(4, 8), /*chunk=*/20);
  ASSERT_TRUE(sequence.Append(100, 20).ok());
  // Row 80, the first of the last chunk, sees back to 72.
  EXPECT_EQ(sequence.Resident(), "[0,4)[72,100)");
  CacheManager& manager = sequence.manager();
  EXPECT_EQ(manager.ResidentTokens(sequence.id()), 32);
  EXPECT_EQ(manager.PeakResidentTokens(sequence.id()), 32);
  EXPECT_EQ(manager.stats().evicted_tokens, 68);
}

TEST(CacheManagerTest, AViewHoldsWhatTheFirstRowOfAChunkSees) {
  ToldSequence sequence(Sinks(4, 8));
  ASSERT_TRUE(sequence.Append(100, 20).ok());
  const KvView view = *sequence.manager().Reserve(sequence.id(), 20);
  ASSERT_EQ(view.runs.size(), 2u);
  EXPECT_EQ(view.runs[0].length, 4);
  EXPECT_EQ(view.runs[1].first_position, 92);
  EXPECT_EQ(view.runs[1].length, 28);
  EXPECT_EQ(view.runs[1].first_slot, 92 % 16);
  EXPECT_EQ(view.runs[1].blocks.size(), 3u);  // 80, 96 and 112 begin them
  EXPECT_EQ(view.Find(119).slot, 119 % 16);
  EXPECT_NE(view.Find(119).block, view.Find(3).block);
}

TEST(CacheManagerTest, AReserveWithoutCommitLeavesTheLength) {
  ToldSequence sequence(Sinks(4, 8));
  ASSERT_TRUE(sequence.Append(10).ok());
  CacheManager& manager = sequence.manager();
  ASSERT_TRUE(manager.Reserve(sequence.id(), 50).ok());
  EXPECT_EQ(manager.Length(sequence.id()), 10);
  EXPECT_EQ(manager.View(sequence.id()).runs.back().end_position(), 10);
  ASSERT_TRUE(manager.Reserve(sequence.id(), 2).ok());  // replaces it
  manager.Commit(sequence.id());
  manager.Commit(sequence.id());  // nothing is left of it
  EXPECT_EQ(manager.Length(sequence.id()), 12);
}

TEST(CacheManagerTest, CommitsWhatProvesRightAndGivesUpTheRest) {
  ToldSequence guessed(Sinks(4, 8), /*chunk=*/8, /*rollback=*/3);
  ToldSequence plain(Sinks(4, 8), /*chunk=*/8, /*rollback=*/3);
  for (int round = 0; round < 200; ++round) {
    const int64_t right = round % 8;  // of seven guessed tokens, and one more
    CacheManager& manager = guessed.manager();
    ASSERT_TRUE(manager.Reserve(guessed.id(), 8).ok());
    manager.CommitFirst(guessed.id(), 1);
    for (int64_t i = 0; i < right; ++i) manager.CommitFirst(guessed.id(), 1);
    EXPECT_EQ(manager.Reserved(guessed.id()), 7 - right);
    manager.Drop(guessed.id());
    EXPECT_EQ(manager.Reserved(guessed.id()), 0);
    ASSERT_TRUE(plain.Decode(1 + right).ok());
    // Both have evicted the same once the next token comes.
    ASSERT_TRUE(guessed.Decode(1).ok());
    ASSERT_TRUE(plain.Decode(1).ok());
    EXPECT_EQ(guessed.Resident(), plain.Resident());
    EXPECT_EQ(manager.EarliestCut(guessed.id()),
              plain.manager().EarliestCut(plain.id()));
    EXPECT_EQ(manager.stats().used_blocks, plain.manager().stats().used_blocks);
  }
}

TEST(CacheManagerTest, ACutGivesUpWhatWasNotCommitted) {
  ToldSequence sequence(Sinks(4, 8), /*chunk=*/8, /*rollback=*/3);
  ASSERT_TRUE(sequence.Decode(20).ok());
  CacheManager& manager = sequence.manager();
  ASSERT_TRUE(manager.Reserve(sequence.id(), 4).ok());
  manager.CommitFirst(sequence.id(), 2);
  ASSERT_TRUE(manager.Truncate(sequence.id(), 21).ok());
  EXPECT_EQ(manager.Reserved(sequence.id()), 0);
  EXPECT_EQ(manager.Length(sequence.id()), 21);
}

TEST(CacheManagerTest, CutsBackAsFarAsTokensAreHeld) {
  ToldSequence sequence(Sinks(4, 8), /*chunk=*/1, /*rollback=*/5);
  ASSERT_TRUE(sequence.Decode(100).ok());
  // Row 94, the last of a text of 95, sees back to 86.
  EXPECT_EQ(sequence.Resident(), "[0,4)[86,100)");
  CacheManager& manager = sequence.manager();
  EXPECT_EQ(manager.EarliestCut(sequence.id()), 95);
  EXPECT_EQ(manager.Truncate(sequence.id(), 94),
            absl::OutOfRangeError(
                "cut a sequence of 100 tokens to 94: what was visible there is "
                "gone; from 95 to 100 works"));
  EXPECT_EQ(manager.Length(sequence.id()), 100);
  EXPECT_TRUE(manager.Truncate(sequence.id(), 95).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[86,95)");
  EXPECT_EQ(manager.EarliestCut(sequence.id()), 95);
}

TEST(CacheManagerTest, AChunkLengthensTheReachOfACut) {
  ToldSequence sequence(Sinks(4, 60), /*chunk=*/16, /*rollback=*/8);
  ASSERT_TRUE(sequence.Append(1000).ok());
  // Before the last 8 tokens, at 992, rows from 984 on had to see: 924 on.
  EXPECT_EQ(sequence.Resident(), "[0,4)[924,1000)");
  EXPECT_EQ(sequence.manager().EarliestCut(sequence.id()), 985);
}

TEST(CacheManagerTest, CutsAnywhereWhileNothingIsEvicted) {
  ToldSequence sequence(Sinks(4, 8));
  ASSERT_TRUE(sequence.Append(12).ok());
  EXPECT_EQ(sequence.manager().EarliestCut(sequence.id()), 0);
  EXPECT_TRUE(sequence.manager().Truncate(sequence.id(), 2).ok());
  EXPECT_EQ(sequence.Resident(), "[0,2)");
}

TEST(CacheManagerTest, ACutReturnsTheBlocksThatItEmpties) {
  ToldSequence sequence(Sinks(4, 60));
  ASSERT_TRUE(sequence.Append(64).ok());
  CacheManager& manager = sequence.manager();
  EXPECT_EQ(manager.stats().used_blocks, 4);
  ASSERT_TRUE(manager.Truncate(sequence.id(), 33).ok());
  EXPECT_EQ(manager.stats().used_blocks, 3);
  ASSERT_TRUE(manager.Truncate(sequence.id(), 32).ok());
  EXPECT_EQ(manager.stats().used_blocks, 2);
  ASSERT_TRUE(manager.Truncate(sequence.id(), 0).ok());
  EXPECT_EQ(manager.stats().used_blocks, 0);
}

TEST(CacheManagerTest, WithoutAHoldOnlyTheWholeLengthAlwaysWorks) {
  ToldSequence sequence(Sinks(4, 8), /*chunk=*/1);
  ASSERT_TRUE(sequence.Decode(100).ok());
  CacheManager& manager = sequence.manager();
  EXPECT_EQ(manager.EarliestCut(sequence.id()), 100);
  ASSERT_TRUE(manager.Reserve(sequence.id(), 1).ok());
  EXPECT_EQ(manager.EarliestCut(sequence.id()), 100);
  EXPECT_TRUE(manager.Truncate(sequence.id(), 100).ok());
  EXPECT_FALSE(manager.Truncate(sequence.id(), 3).ok());
}

TEST(CacheManagerTest, ClearKeepsTheReservationAndCloseReturnsIt) {
  CacheManager manager(kSpec, 8);
  const SequenceId id = *manager.Open(Options());
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(manager.Reserve(id, 16).ok());
    manager.Commit(id);
  }
  manager.Clear(id);
  EXPECT_EQ(manager.stats().used_blocks, 0);
  EXPECT_EQ(manager.stats().reserved_blocks, 8);
  EXPECT_EQ(manager.EarliestCut(id), 0);
  ASSERT_TRUE(manager.Reserve(id, 10).ok());
  manager.Commit(id);
  EXPECT_EQ(manager.ResidentTokens(id), 10);
  manager.Close(id);
  EXPECT_EQ(manager.stats().used_blocks, 0);
  EXPECT_EQ(manager.stats().reserved_blocks, 0);
  EXPECT_EQ(manager.stats().sequences, 0);
}

TEST(CacheManagerTest, GoesOnBeyond32BitsAsBefore) {
  if (std::getenv("MILLRACE_FULL") == nullptr) {
    GTEST_SKIP() << "appends 2^32 tokens: with MILLRACE_FULL=1";
  }
  constexpr int64_t kChunk = 1 << 16, kBeyond = (int64_t{1} << 32) + kChunk;
  ToldSequence sequence(Sinks(4, 60), kChunk, /*rollback=*/8);
  ASSERT_TRUE(sequence.Append(kBeyond, kChunk).ok());
  ASSERT_TRUE(sequence.Decode(100).ok());
  const int64_t length = kBeyond + 100;
  CacheManager& manager = sequence.manager();
  EXPECT_EQ(manager.Length(sequence.id()), length);
  EXPECT_EQ(sequence.Resident(), Told({{0, 4}, {length - 69, length}}));
  EXPECT_EQ(manager.EarliestCut(sequence.id()), length - 8);
  EXPECT_EQ(manager.stats().evicted_tokens, length - 73);
  const KvView view = *manager.Reserve(sequence.id(), 1);
  EXPECT_EQ(view.runs[1].end_position(), length + 1);
  EXPECT_EQ(view.Find(length).slot, length % 16);
  EXPECT_NE(view.Find(length).block, view.Find(length - 16).block);
}

// Says that it holds one token, and holds 64.
class LyingPolicy : public CachePolicy {
 public:
  absl::string_view Name() const override { return "lying"; }
  std::string ToString() const override { return "lying"; }
  PolicyTraits traits() const override { return {}; }
  int64_t MaxResidentTokens(int64_t) const override { return 1; }
  int64_t MaxDistance() const override { return 63; }
  std::vector<RunRule> Rules(int64_t) const override { return {RunRule{}}; }
  absl::StatusOr<EvictionPlan> Plan(const SequenceView&,
                                    int64_t) const override {
    return EvictionPlan{};
  }
};

TEST(CacheManagerDeathTest, APolicyTakesNoBlocksOfAnotherSequence) {
  CacheManager manager(kSpec, 100);
  const SequenceId id =
      *manager.Open({.policy = std::make_shared<const LyingPolicy>()});
  ASSERT_TRUE(manager.Reserve(id, 16).ok());  // 1 block, as reserved
  EXPECT_DEATH((void)manager.Reserve(id, 17), "");
}

}  // namespace
}  // namespace millrace::cache
