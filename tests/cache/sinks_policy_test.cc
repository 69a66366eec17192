#include "cache/policies/sinks_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cache/cache_manager.h"
#include "cache/policies/full_policy.h"
#include "cache/visibility_ledger.h"

namespace millrace::cache {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kContext = 8192;

std::shared_ptr<const CachePolicy> Sinks(int64_t s, int64_t r, int64_t p = 0) {
  return *NewSinksPolicy(
      {.sink_tokens = s, .window_tokens = r, .pinned_tokens = p}, kContext);
}

// A sequence under 4 sinks and a window of 8, told in resident ranges.
class SinksSequence {
 public:
  explicit SinksSequence(std::shared_ptr<const CachePolicy> policy,
                         int64_t chunk = 64, int64_t rollback = 0)
      : manager_(KvSpec{1, 1, 4, KvDtype::kF32}, 4096) {
    id_ = *manager_.Open({.policy = std::move(policy),
                          .max_chunk_tokens = chunk,
                          .rollback_tokens = rollback});
  }

  absl::Status Append(int64_t n) {
    const absl::StatusOr<KvView> view = manager_.Reserve(id_, n);
    if (view.ok()) manager_.Commit(id_);
    return view.status();
  }

  std::string Resident() const {
    std::string text;
    for (const TextRange& r : manager_.Resident(id_)) {
      absl::StrAppend(&text, "[", r.begin, ",", r.end, ")");
    }
    return text;
  }

  CacheManager& manager() { return manager_; }
  SequenceId id() const { return id_; }

 private:
  CacheManager manager_;
  SequenceId id_;
};

TEST(SinksPolicyTest, KeepsSinksWhileTheWindowSlides) {
  SinksSequence sequence(Sinks(4, 8));
  for (int i = 0; i < 13; ++i) ASSERT_TRUE(sequence.Append(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,13)");  // just full
  ASSERT_TRUE(sequence.Append(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[5,14)");
  for (int i = 14; i < 100'013; ++i) ASSERT_TRUE(sequence.Append(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[100004,100013)");
}

TEST(SinksPolicyTest, PinnedPromptReplacesFewerSinks) {
  SinksSequence sequence(Sinks(4, 8, 6));
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(sequence.Append(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,6)[31,40)");
}

TEST(SinksPolicyTest, RefusesAnEmptyWindow) {
  const auto policy = NewSinksPolicy({.window_tokens = 0}, kContext);
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(policy.status().message(), HasSubstr("window_tokens=0"));
}

TEST(SinksPolicyTest, RefusesMoreThanTheTrainedContext) {
  const auto policy = NewSinksPolicy({.window_tokens = 9000}, kContext);
  EXPECT_EQ(
      policy.status().message(),
      "window_tokens=9000 + sink_tokens=4 + 1 exceeds the model's trained "
      "context of 8192");
  EXPECT_TRUE(NewSinksPolicy({.window_tokens = 8187}, kContext).ok());
  EXPECT_FALSE(NewSinksPolicy({.window_tokens = INT64_MAX}, kContext).ok());
}

TEST(FullPolicyTest, RefusesWhatDoesNotFitAndChangesNothing) {
  SinksSequence sequence(*NewFullPolicy({.max_tokens = 100}, kContext));
  ASSERT_TRUE(sequence.Append(60).ok());
  const absl::Status refused = sequence.Append(41);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("room for 40 of 100"));
  EXPECT_EQ(sequence.Resident(), "[0,60)");
  EXPECT_TRUE(sequence.Append(40).ok());
}

TEST(CacheManagerTest, CutsBackAsFarAsTokensAreHeld) {
  SinksSequence sequence(Sinks(4, 8), 1, /*rollback=*/5);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(sequence.Append(1).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[86,100)");
  EXPECT_EQ(sequence.manager().EarliestCut(sequence.id()), 95);
  EXPECT_EQ(sequence.manager().Truncate(sequence.id(), 94).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_TRUE(sequence.manager().Truncate(sequence.id(), 95).ok());
  EXPECT_EQ(sequence.Resident(), "[0,4)[86,95)");
}

TEST(CacheManagerTest, CutsAnywhereWhileNothingIsEvicted) {
  SinksSequence sequence(Sinks(4, 8));
  ASSERT_TRUE(sequence.Append(12).ok());
  EXPECT_EQ(sequence.manager().EarliestCut(sequence.id()), 0);
  EXPECT_TRUE(sequence.manager().Truncate(sequence.id(), 2).ok());
  EXPECT_EQ(sequence.Resident(), "[0,2)");
}

TEST(CacheManagerTest, AViewHoldsWhatTheFirstRowOfAChunkSees) {
  SinksSequence sequence(Sinks(4, 8));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(sequence.Append(20).ok());
  const KvView view = *sequence.manager().Reserve(sequence.id(), 20);
  ASSERT_EQ(view.runs.size(), 2);
  EXPECT_EQ(view.runs[0].length, 4);
  EXPECT_EQ(view.runs[1].first_position, 92);
  EXPECT_EQ(view.runs[1].length, 28);
  EXPECT_EQ(view.runs[1].first_slot, 92 % 16);
  EXPECT_NE(view.Find(119).block, view.Find(3).block);
}

// Visibility straight from the paper's definition, apart from Rules and Plan.
bool Sees(int64_t t, int64_t j, int64_t f, int64_t r) {
  return j <= t && (j < f || j >= t - r);
}

TEST(CacheManagerTest, RandomAppendsAndCutsKeepEveryPromise) {
  std::mt19937 random(7);
  for (int round = 0; round < 500; ++round) {
    const int64_t s = random() % 20, r = 1 + random() % 60;
    const int64_t chunk = 1 + random() % 40, hold = random() % 30;
    const auto policy = Sinks(s, r);
    SinksSequence sequence(policy, chunk, hold);
    CacheManager& manager = sequence.manager();
    const SequenceId id = sequence.id();
    VisibilityLedger ledger(policy);
    int64_t announced = 0, longest = 0;
    for (int step = 0; step < 30; ++step) {
      if (random() % 5 == 0) {
        // The hold counts from the longest the text ever was.
        const int64_t back = random() % (hold + 1);
        const int64_t cut =
            std::clamp<int64_t>(longest - back, 0, manager.Length(id));
        ASSERT_TRUE(manager.Truncate(id, cut).ok());
      } else {
        ASSERT_TRUE(sequence.Append(1 + random() % chunk).ok());
      }
      const int64_t n = manager.Length(id);
      longest = std::max(longest, n);
      int64_t evicted = 0;
      for (int64_t j = 0; j < n; ++j) {
        const bool sees = Sees(n - 1, j, s, r);
        evicted += !sees;
        bool resident = false;
        for (const TextRange& range : manager.Resident(id)) {
          resident |= j >= range.begin && j < range.end;
        }
        ASSERT_TRUE(resident || !sees) << j << " of " << n;
      }
      const VisibilityChange change = ledger.Advance(n);
      for (const TextRange& x : change.evicted) announced += x.size();
      for (const TextRange& x : change.restored) announced -= x.size();
      ASSERT_EQ(announced, evicted);
      ASSERT_LE(manager.ResidentTokens(id),
                policy->MaxResidentTokens(chunk + hold));
      ASSERT_LE(manager.stats().used_blocks, manager.stats().reserved_blocks);
    }
    manager.Close(id);
    ASSERT_EQ(manager.stats().used_blocks, 0);
    ASSERT_EQ(manager.stats().reserved_blocks, 0);
  }
}

TEST(VisibilityLedgerTest, AnnouncesEvictionsOnceAndRestoresAfterACut) {
  VisibilityLedger ledger(Sinks(12, 60));
  EXPECT_TRUE(ledger.Advance(73).empty());
  EXPECT_EQ(ledger.Advance(74).evicted, (std::vector<TextRange>{{12, 13}}));
  EXPECT_EQ(ledger.Advance(105).evicted, (std::vector<TextRange>{{13, 44}}));
  const VisibilityChange cut = ledger.Advance(100);
  EXPECT_TRUE(cut.evicted.empty());
  EXPECT_EQ(cut.restored, (std::vector<TextRange>{{39, 44}}));
  EXPECT_EQ(ledger.VisibleTokens(332), 73);
}

}  // namespace
}  // namespace millrace::cache
