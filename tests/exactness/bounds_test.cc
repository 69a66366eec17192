// What the views and the memory of a stream keep to, for any length of text.

#include <algorithm>
#include <map>
#include <set>

#include "cache/cache_manager.h"
#include "cache/visibility_ledger.h"
#include "gtest/gtest.h"
#include "tests/exactness/models.h"
#include "tests/exactness/streaming_policies.h"

namespace millrace::testing {
namespace {

using cache::CacheManager;
using cache::KvRun;
using cache::KvView;
using cache::SequenceId;
using cache::TextRange;

constexpr cache::KvSpec kSpec{1, 1, 2};
constexpr int64_t kChunk = 64;

class BoundsTest : public ::testing::TestWithParam<StreamingPolicy> {
 protected:
  // With exactly the blocks that the policy promises to keep to.
  BoundsTest()
      : options_{.policy = GetParam().policy(), .max_chunk_tokens = kChunk},
        manager_(kSpec, static_cast<int32_t>(MaxBlocks(options_, kSpec.dtype))),
        id_(manager_.Open(options_).value()) {}

  // Appends n tokens, fewer where the rules change; the view of their rows.
  KvView Append(int64_t n) {
    n = std::min(n, manager_.MaxChunk(id_));
    KvView view = manager_.Reserve(id_, n).value();
    manager_.Commit(id_);
    return view;
  }

  // The tokens that row t sees through the view, and at which distance.
  static std::map<int64_t, int64_t> Seen(const KvView& view, int64_t t) {
    std::map<int64_t, int64_t> seen;
    for (const KvRun& run : view.runs) {
      const int64_t first =
          std::max(run.first_position, run.rule.FirstVisible(t));
      for (int64_t j = first; j <= t && j < run.end_position(); ++j) {
        EXPECT_TRUE(seen.emplace(j, run.rule.QueryPosition(t) - j).second);
      }
    }
    return seen;
  }

  std::map<int64_t, int64_t> Defined(int64_t t) const {
    std::map<int64_t, int64_t> seen;
    for (int64_t j = 0; j <= t; ++j) {
      const int64_t distance = GetParam().visibility(t, j);
      if (distance >= 0) seen.emplace(j, distance);
    }
    return seen;
  }

  const cache::SequenceOptions options_;
  CacheManager manager_;
  const SequenceId id_;
};

TEST_P(BoundsTest, EveryRowSeesWhatTheDefinitionSays) {
  int64_t length = 0;
  for (int step = 0; length < 8 * GetParam().cache; ++step) {
    const KvView view = Append(1 + step * 7 % kChunk);
    for (; length < manager_.Length(id_); ++length) {
      ASSERT_EQ(Seen(view, length), Defined(length)) << "row " << length;
    }
  }
}

TEST_P(BoundsTest, DistancesStayBelowTheCacheForEver) {
  const int64_t bound = GetParam().cache;
  EXPECT_LE(GetParam().policy()->MaxDistance(), bound);
  int64_t longest = 0;
  while (manager_.Length(id_) < 200'000) {
    const int64_t first = manager_.Length(id_);
    const KvView view = Append(kChunk);
    for (const int64_t t : {first, manager_.Length(id_) - 1}) {
      for (const auto& [j, distance] : Seen(view, t)) {
        ASSERT_GE(distance, 0);
        ASSERT_LE(distance, bound) << "row " << t << ", token " << j;
        longest = std::max(longest, distance);
      }
    }
  }
  EXPECT_EQ(longest, bound);  // and it is reached
}

TEST_P(BoundsTest, ProtectedTokensStayAndNothingComesBack) {
  const int64_t sinks = GetParam().sinks, window = GetParam().window;
  std::set<int64_t> gone;
  for (int64_t t = 0; t < 20 * GetParam().cache; ++t) {
    const auto seen = Seen(Append(1), t);
    for (int64_t j = 0; j <= t; ++j) {
      const bool visible = seen.contains(j);
      if (j < sinks || j >= t - window) {
        ASSERT_TRUE(visible);
      }
      if (!visible) gone.insert(j);
      ASSERT_FALSE(visible && gone.contains(j)) << j << " came back at " << t;
    }
  }
}

TEST_P(BoundsTest, MemoryIsBoundedForAPromptOfAnyLength) {
  const int64_t promised = options_.policy->MaxResidentTokens(kChunk);
  while (manager_.Length(id_) < 20 * GetParam().cache) {
    Append(kChunk);
    ASSERT_LE(manager_.ResidentTokens(id_), promised);
  }
  EXPECT_LE(manager_.PeakResidentTokens(id_), promised);
  const int64_t t = manager_.Length(id_);
  const auto seen = Seen(Append(1), t);
  for (int64_t j = t - GetParam().window; j <= t; ++j) {
    EXPECT_TRUE(seen.contains(j));
  }
  manager_.Close(id_);
  EXPECT_EQ(manager_.stats().used_blocks, 0);
  EXPECT_EQ(manager_.stats().reserved_blocks, 0);
}

void Add(const std::vector<TextRange>& ranges, std::set<int64_t>& to) {
  for (const TextRange& range : ranges) {
    for (int64_t p = range.begin; p < range.end; ++p) {
      ASSERT_TRUE(to.insert(p).second) << p << " is announced twice";
    }
  }
}

void Remove(const std::vector<TextRange>& ranges, std::set<int64_t>& from) {
  for (const TextRange& range : ranges) {
    for (int64_t p = range.begin; p < range.end; ++p) {
      ASSERT_EQ(from.erase(p), 1) << p << " was not evicted";
    }
  }
}

TEST_P(BoundsTest, WhatIsAnnouncedIsWhatIsEvicted) {
  cache::VisibilityLedger ledger(GetParam().policy());
  const int64_t c = GetParam().cache;
  std::set<int64_t> announced;
  // Forwards and, four times, back.
  for (const int64_t n : {int64_t{1}, c, c + 2, 3 * c, 3 * c - 9, 9 * c,
                          8 * c + 1, 8 * c + 2, 2 * c, c - 1, 5 * c}) {
    const cache::VisibilityChange change = ledger.Advance(n);
    Add(change.evicted, announced);
    Remove(change.restored, announced);
    std::set<int64_t> evicted;
    const auto seen = Defined(n - 1);
    for (int64_t p = 0; p < n; ++p) {
      if (!seen.contains(p)) evicted.insert(p);
    }
    ASSERT_EQ(announced, evicted) << "after " << n << " tokens";
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, BoundsTest,
                         ::testing::ValuesIn(StreamingPolicies()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::testing
