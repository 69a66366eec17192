// What a policy that chooses by attention and the cache manager promise
// together.
#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "cache/visibility_ledger.h"
#include "tests/cache/contract/properties.h"
#include "tests/cache/contract/random_case.h"
#include "tests/cache/contract/scored_cache.h"
#include "tests/cache/contract/text_history.h"

namespace millrace::cache {
namespace {

// The blocks that `held` slots fill, of which `wide` are in pairs of their own.
int64_t BlocksFilled(int64_t held, int64_t wide) {
  const auto blocks = [](int64_t begin, int64_t end) {
    std::set<int64_t> touched;
    for (int64_t i = begin; i < end; ++i) touched.insert(i / kBlockTokens);
    return static_cast<int64_t>(touched.size());
  };
  const int64_t in_pairs = std::min(held, wide);
  return 2 * blocks(0, in_pairs) + blocks(in_pairs, held);
}

// Of a sequence that is read to its end, and one that reads the same at once.
std::string DifferenceFromReadAnew(ScoredCache& cache, History& history,
                                   const PolicyPtr& policy, RandomCase& random,
                                   uint32_t seed) {
  history.End();
  cache.End();
  ScoredCache anew(OptionsFor(policy, random), random.dtype(), seed,
                   RandomChunks(random));
  history.Repeat(anew);
  anew.End();
  return Difference(cache, anew, SumsMatter(*policy));
}

}  // namespace

std::string HeadsHoldWhatTheyShould(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  ScoredCache cache(OptionsFor(policy, random), random.dtype(), seed,
                    RandomChunks(random));
  History history(&random);
  for (int i = 0; i < 8; ++i) {
    history.Grow(cache);
    if (!cache.violation().empty()) return cache.violation();
    if (random.Below(4) != 0) continue;
    const int64_t earliest = cache.manager().EarliestCut(cache.id());
    const int64_t length =
        earliest + random.Below(cache.text_length() - earliest + 1);
    if (!cache.CutTo(length).ok()) return "a cut is refused";
    history.CutTo(length);
  }
  return cache.violation();
}

std::string KeysAreAtBoundedDistances(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  ScoredCache cache(OptionsFor(policy, random), random.dtype(), seed,
                    RandomChunks(random));
  History history(&random);
  for (int i = 0; i < 6; ++i) history.Grow(cache);
  if (cache.smallest_distance() >= 0 &&
      cache.largest_distance() <= policy->MaxDistance()) {
    return "";
  }
  return absl::StrCat("distances are ", cache.smallest_distance(), " to ",
                      cache.largest_distance(), ", not 0 to ",
                      policy->MaxDistance());
}

std::string HeldTokensAreBounded(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const SequenceOptions options = OptionsFor(policy, random);
  ScoredCache cache(options, random.dtype(), seed, RandomChunks(random));
  CacheManager& manager = cache.manager();
  History history(&random);
  const int64_t bound =
      policy->MaxResidentTokens(random.max_chunk() + random.hold());
  const int64_t budget = policy->scoring()->budget_tokens();
  const int64_t wide =
      HasWidePrefix(random.dtype()) ? policy->traits().protected_prefix : 0;
  for (int i = 0; i < 8; ++i) {
    history.Grow(cache);
    if (manager.PeakResidentTokens(cache.id()) > bound) {
      return absl::StrCat(manager.PeakResidentTokens(cache.id()),
                          " were held, ", bound, " promised");
    }
    if (cache.last_cut() > 0 && cache.held_after_cut() != budget) {
      return absl::StrCat(cache.held_after_cut(), " are held after a cut, the ",
                          "budget is ", budget);
    }
    const CacheManager::Stats stats = manager.stats();
    const int64_t filled =
        BlocksFilled(manager.ResidentTokens(cache.id()), wide);
    if (stats.used_blocks != filled ||
        stats.used_blocks > stats.reserved_blocks) {
      return absl::StrCat(stats.used_blocks, " blocks in use, ", filled,
                          " hold tokens, ", stats.reserved_blocks, " reserved");
    }
  }
  manager.Close(cache.id());
  const CacheManager::Stats stats = manager.stats();
  if (stats.used_blocks == 0 && stats.reserved_blocks == 0) return "";
  return absl::StrCat(stats.used_blocks, " blocks in use after Close");
}

std::string ChunksOfTheTextDoNotMatter(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const SequenceOptions options = OptionsFor(policy, random);
  ScoredCache cut(options, random.dtype(), seed, RandomChunks(random));
  ScoredCache other(options, random.dtype(), seed, RandomChunks(random));
  History history(&random);
  for (int i = 0; i < 6; ++i) history.Grow(cut);
  history.End();
  cut.End();
  if (policy->scoring()->HeldBackTokens() == 0) {
    other.Read(cut.text());  // nor do messages
  } else {
    history.Repeat(other);
    other.End();
  }
  return Difference(cut, other, true);
}

std::string CutTextLeavesNoTrace(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const SequenceOptions options = OptionsFor(policy, random);
  ScoredCache cache(options, random.dtype(), seed, RandomChunks(random));
  CacheManager& manager = cache.manager();
  History history(&random);
  for (int i = 0; i < 6; ++i) {
    history.Grow(cache);
    const int64_t computed = cache.length();
    const int64_t earliest = manager.EarliestCut(cache.id());
    if (earliest != cache.last_cut()) {
      return absl::StrCat("a cut to ", earliest, " works; tokens were dropped ",
                          "at ", cache.last_cut());
    }
    for (const int64_t bad : {earliest - 1, computed + 1}) {
      if (manager.Truncate(cache.id(), bad).code() !=
              absl::StatusCode::kOutOfRange ||
          cache.length() != computed) {
        return absl::StrCat("a cut of ", computed, " to ", bad, " is taken");
      }
    }
    if (random.Below(2) == 0) continue;
    const int64_t length =
        earliest + random.Below(cache.text_length() - earliest + 1);
    if (!cache.CutTo(length).ok() || cache.length() > length) {
      return absl::StrCat("a cut to ", length, " is refused");
    }
    history.CutTo(length);
  }
  // Tokens that were taken back may still be missing, and a cut be made early.
  history.Grow(cache);
  return DifferenceFromReadAnew(cache, history, policy, random, seed);
}

std::string AClearedTextLeavesNoTrace(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const SequenceOptions options = OptionsFor(policy, random);
  ScoredCache cache(options, random.dtype(), seed, RandomChunks(random));
  History before(&random), history(&random);
  for (int i = 0; i < 4; ++i) before.Grow(cache);
  cache.Clear();
  if (cache.length() != 0 || cache.manager().ResidentTokens(cache.id()) != 0 ||
      cache.manager().stats().used_blocks != 0) {
    return "something is left after Clear";
  }
  for (int i = 0; i < 4; ++i) history.Grow(cache);
  return DifferenceFromReadAnew(cache, history, policy, random, seed);
}

std::string WhatNoHeadHoldsIsAnnounced(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  ScoredCache cache(OptionsFor(policy, random), random.dtype(), seed,
                    RandomChunks(random));
  History history(&random);
  VisibilityLedger ledger(policy, [&cache] {
    std::vector<TextRange> held = cache.manager().Resident(cache.id());
    held.push_back({cache.length(), kUnlimited});
    return held;
  });
  std::set<int64_t> account;  // announced as evicted, and not restored
  for (int i = 0; i < 8; ++i) {
    if (random.Below(4) == 0) {
      const int64_t earliest = cache.manager().EarliestCut(cache.id());
      const int64_t length =
          earliest + random.Below(cache.text_length() - earliest + 1);
      if (!cache.CutTo(length).ok()) return "a cut is refused";
      history.CutTo(length);
    } else {
      history.Grow(cache);
    }
    const VisibilityChange change = ledger.Advance(cache.text_length());
    for (const TextRange& range : change.evicted) {
      for (int64_t p = range.begin; p < range.end; ++p) {
        if (!account.insert(p).second) return absl::StrCat(p, " left twice");
      }
    }
    for (const TextRange& range : change.restored) {
      for (int64_t p = range.begin; p < range.end; ++p) {
        if (account.erase(p) == 0) return absl::StrCat(p, " never left");
      }
    }
    std::set<int64_t> gone;
    for (int64_t p = 0; p < cache.length(); ++p) gone.insert(p);
    for (const Names& held : cache.Held()) {
      for (const int64_t name : held) gone.erase(PositionOf(name));
    }
    if (account != gone) {
      return absl::StrCat("after ", cache.text_length(), " tokens ",
                          account.size(), " are announced, ", gone.size(),
                          " are held by no head");
    }
    const auto evicted = static_cast<int64_t>(gone.size());
    if (ledger.EvictedTokens(cache.text_length()) != evicted) {
      return absl::StrCat(evicted, " are gone, not ",
                          ledger.EvictedTokens(cache.text_length()));
    }
  }
  return "";
}

}  // namespace millrace::cache
