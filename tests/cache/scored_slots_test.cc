#include "cache/scored_slots.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cache/policies/h2o_policy.h"
#include "cache/policies/snapkv_policy.h"
#include "cache/policies/tova_policy.h"
#include "tests/cache/scored_test_policies.h"
#include "tests/cache/told_sequence.h"

namespace millrace::cache {
namespace {

constexpr KvSpec kTwoHeads{.num_layers = 1, .num_kv_heads = 2, .head_dim = 1};

// The slots of one sequence whose attention is told: slot by slot of each head.
class ToldSlots {
 public:
  explicit ToldSlots(std::shared_ptr<const CachePolicy> policy)
      : policy_(std::move(policy)),
        slots_(*policy_, kTwoHeads, policy_->MaxResidentTokens(1)) {}

  // Appends tokens; the sums of all slots are set to those told, if any.
  void Append(int64_t tokens, const std::vector<float>& first = {},
              const std::vector<float>& second = {}) {
    if (slots_.cut_due()) {
      slots_.Cut([this](int, int head, absl::Span<const int64_t> survivors) {
        absl::StrAppend(&moves, head, ":");
        for (const int64_t slot : survivors) absl::StrAppend(&moves, slot);
        absl::StrAppend(&moves, " ");
      });
    }
    KvView view;
    slots_.Begin(tokens, &view);
    row_offset = view.row_offset;
    counted = view.attention.has_value();
    if (counted) {
      HeadTable<float>& sums = *view.attention->sums;
      std::copy(first.begin(), first.end(), sums.At(0, 0).begin());
      std::copy(second.begin(), second.end(), sums.At(0, 1).begin());
      sums_ = &sums;
    }
    positions_ = view.key_positions;
    slots_.Commit(tokens);
  }

  Positions Held(int head) const {
    const auto held = positions_->At(0, head).first(slots_.slots());
    return {held.begin(), held.end()};
  }
  std::vector<float> Sums(int head) const {
    const auto sums = sums_->At(0, head).first(slots_.slots());
    return {sums.begin(), sums.end()};
  }

  ScoredSlots* operator->() { return &slots_; }

  std::string moves;  // "HEAD:SLOTS "
  int64_t row_offset = 0;
  bool counted = false;

 private:
  const std::shared_ptr<const CachePolicy> policy_;
  ScoredSlots slots_;
  const HeadTable<int64_t>* positions_ = nullptr;
  const HeadTable<float>* sums_ = nullptr;
};

// Keeps one sink, the newest, and one between; a cut each three tokens.
ToldSlots H2o() {
  return ToldSlots(*NewH2oPolicy({.scored = {.budget_tokens = 3,
                                             .stride = 3,
                                             .sink_tokens = 1,
                                             .recent_tokens = 1}},
                                 8192));
}

// The same, with two rows that vote.
ToldSlots Snapkv() {
  return ToldSlots(*NewSnapkvPolicy({.scored = {.budget_tokens = 4,
                                                .stride = 6,
                                                .sink_tokens = 1,
                                                .recent_tokens = 2},
                                     .pool_kernel = 1},
                                    8192));
}

TEST(ScoredSlotsTest, EachHeadKeepsItsOwnChoiceInTheFirstSlots) {
  ToldSlots slots = H2o();
  slots.Append(3);
  slots.Append(3, {0, 5, 1, 2, 3, 0}, {0, 1, 2, 7, 3, 0});
  EXPECT_TRUE(slots->cut_due());
  slots.Append(1);
  EXPECT_EQ(slots.moves, "0:015 1:035 ");
  EXPECT_EQ(slots.Held(0), (Positions{0, 1, 5, 6}));
  EXPECT_EQ(slots.Held(1), (Positions{0, 3, 5, 6}));
  EXPECT_EQ(slots.Sums(1), (std::vector<float>{0, 7, 0, 0}));
  EXPECT_EQ(slots.row_offset, 3);
  EXPECT_EQ(Told(slots->Held()), "[0,2)[3,4)[5,7)");
}

TEST(ScoredSlotsTest, ALayerChoosesByTheSumOverItsHeads) {
  ToldSlots slots(*NewTovaPolicy(
      {.budget_tokens = 2, .stride = 4, .sink_tokens = 0, .recent_tokens = 1},
      8192));
  slots.Append(4, {3, 0, 2, 0}, {0, 1, 2, 0});
  slots.Append(1);
  EXPECT_EQ(slots.moves, "0:23 1:23 ");
}

TEST(ScoredSlotsTest, ACutIsMadeWhenTheNextTokensCome) {
  ToldSlots slots = H2o();
  slots.Append(3);
  slots.Append(3);
  EXPECT_TRUE(slots->cut_due());
  EXPECT_EQ(slots->slots(), 6);
  EXPECT_EQ(slots->EarliestCut(), 0);
  EXPECT_EQ(Told(slots->AfterCut()), "[0,3)");
  EXPECT_EQ(slots->MaxChunk(), 3);
  slots.Append(1);
  EXPECT_EQ(slots->slots(), 4);
  EXPECT_EQ(slots->EarliestCut(), 6);
  EXPECT_EQ(slots->MaxChunk(), 2);
}

TEST(ScoredSlotsTest, GrowingSumsGoBackToTheLastCutAsAWhole) {
  ToldSlots slots = H2o();
  slots.Append(3);
  slots.Append(3, {0, 5, 1, 2, 3, 4}, {0, 5, 1, 2, 3, 4});
  slots.Append(2, {9, 9, 9, 9, 9}, {9, 9, 9, 9, 9});
  slots->Truncate(7);
  EXPECT_EQ(slots->length(), 6);  // the token between is to come once more
  EXPECT_EQ(slots.Sums(0), (std::vector<float>{0, 5, 4}));
  EXPECT_EQ(slots->dropped(), 3);
}

TEST(ScoredSlotsTest, BeforeAnythingIsDroppedGrowingSumsStartAnew) {
  ToldSlots slots = H2o();
  slots.Append(3);
  slots.Append(2);
  slots->Truncate(2);
  EXPECT_EQ(slots->length(), 0);
}

TEST(ScoredSlotsTest, WithoutSumsThatGrowACutGoesWhereItIsTold) {
  ToldSlots slots(*NewTovaPolicy(
      {.budget_tokens = 3, .stride = 3, .sink_tokens = 1}, 8192));
  slots.Append(3);
  slots.Append(3);
  slots->Truncate(6);
  EXPECT_TRUE(slots->cut_due());  // nothing is taken back
  slots->Truncate(5);
  EXPECT_FALSE(slots->cut_due());
  EXPECT_EQ(slots->length(), 5);
}

TEST(ScoredSlotsTest, AShorterInputLetsOtherRowsVote) {
  ToldSlots slots = Snapkv();
  slots->SetInputEnd(8);
  slots.Append(6);
  EXPECT_FALSE(slots.counted);
  slots.Append(2, {0, 1, 2, 3, 4, 5, 0, 0});
  EXPECT_TRUE(slots.counted);
  slots->Truncate(7);  // rows 5 and 6 are to vote now
  EXPECT_EQ(slots->length(), 5);
  EXPECT_EQ(slots.Sums(0), std::vector<float>(5));
}

TEST(ScoredSlotsTest, WhatIsWrittenIsTakenBackTokenByToken) {
  ToldSlots slots = Snapkv();
  slots->SetInputEnd(4);
  slots.Append(4);
  for (int i = 0; i < 3; ++i) slots.Append(1);
  slots->Truncate(6);
  EXPECT_EQ(slots->length(), 6);
  slots->Truncate(4);  // where the input ended
  EXPECT_EQ(slots->length(), 4);
}

TEST(ScoredSlotsTest, InputThatEndsSoonerThanSaidGoesBackToItsVotes) {
  ToldSlots slots = Snapkv();
  slots->SetInputEnd(9);
  slots.Append(6);
  slots->ShortenInput(9);
  EXPECT_EQ(slots->length(), 6);
  slots->ShortenInput(7);  // rows 5 and 6 vote
  EXPECT_EQ(slots->length(), 5);
}

TEST(ScoredSlotsTest, InputThatEndsBeyondACutToComeKeepsItsVotes) {
  ToldSlots slots = Snapkv();
  slots->SetInputEnd(30);
  slots.Append(9);  // row 8 votes for the cut at 10
  EXPECT_TRUE(slots.counted);
  slots->ShortenInput(10);
  EXPECT_EQ(slots->length(), 9);
  slots->ShortenInput(9);
  EXPECT_EQ(slots->length(), 7);
}

}  // namespace
}  // namespace millrace::cache
