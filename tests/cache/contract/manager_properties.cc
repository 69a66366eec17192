// What a policy and the cache manager promise together.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/cache/contract/properties.h"
#include "tests/cache/contract/random_case.h"
#include "tests/cache/contract/stamped_cache.h"

namespace millrace::cache {
namespace {

SequenceOptions OptionsFor(const PolicyPtr& policy, const RandomCase& random) {
  return {.policy = policy,
          .max_chunk_tokens = random.max_chunk(),
          .rollback_tokens = random.hold()};
}

// Carries out a step; a cut goes no further back than it may. False if the
// policy refuses.
bool Carry(const Step& step, StampedCache& cache) {
  CacheManager& manager = cache.manager();
  switch (step.kind) {
    case Step::kAppend:
      return cache.Append(step.tokens);
    case Step::kCut:
      return manager
          .Truncate(cache.id(), std::max(manager.EarliestCut(cache.id()),
                                         cache.length() - step.tokens))
          .ok();
    case Step::kClear:
      manager.Clear(cache.id());
      return true;
  }
  return false;
}

std::vector<int64_t> PositionsOf(const StampedCache::Row& row) {
  std::vector<int64_t> positions;
  for (const StampedCache::Key& key : row) positions.push_back(key.position);
  return positions;
}

std::vector<int64_t> SeenBy(const CachePolicy& policy, int64_t t) {
  const std::vector<RunRule> rules = policy.Rules(t);
  std::vector<int64_t> seen;
  for (int64_t p = 0; p <= t; ++p) {
    if (Sees(rules, t, p)) seen.push_back(p);
  }
  return seen;
}

// The blocks that hold one of these tokens or more; `wide` tokens are in pairs
// of their own.
int64_t BlocksTouched(const std::vector<TextRange>& resident, int64_t wide) {
  std::set<int64_t> blocks, pairs;
  for (const TextRange& range : resident) {
    for (int64_t p = range.begin; p < range.end; ++p) {
      (p < wide ? pairs : blocks).insert(p / kBlockTokens);
    }
  }
  return static_cast<int64_t>(blocks.size() + 2 * pairs.size());
}

// Whether all that row `t` sees is resident.
bool IsWhole(const CachePolicy& policy, StampedCache& cache, int64_t t) {
  const std::vector<TextRange> resident = cache.manager().Resident(cache.id());
  for (const int64_t p : SeenBy(policy, t)) {
    const bool held = std::any_of(
        resident.begin(), resident.end(),
        [p](const TextRange& r) { return p >= r.begin && p < r.end; });
    if (!held) return false;
  }
  return true;
}

}  // namespace

std::string RowsReadWhatWasWritten(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  StampedCache cache(OptionsFor(policy, random), random.dtype());
  for (int i = 0; i < 25; ++i) {
    const int64_t begin = cache.length();
    const Step step = random.NextStep();
    if (!Carry(step, cache) || step.kind != Step::kAppend) continue;
    if (!cache.violation().empty()) return cache.violation();
    for (int64_t t = begin; t < cache.length(); ++t) {
      if (PositionsOf(cache.rows()[t - begin]) != SeenBy(*policy, t)) {
        return absl::StrCat("row ", t, " of a chunk from ", begin,
                            " is not given what it sees");
      }
    }
  }
  return "";
}

std::string ChunksDoNotMatter(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  StampedCache chunked(OptionsFor(policy, random), random.dtype());
  StampedCache decoded(OptionsFor(policy, random), random.dtype());
  for (int i = 0; i < 15; ++i) {
    const int64_t chunk = random.Chunk();
    if (!chunked.Append(chunk)) break;
    for (int64_t row = 0; row < chunk; ++row) {
      if (!decoded.Append(1)) return "refused token by token";
      if (chunked.rows()[row] != decoded.rows()[0]) {
        return absl::StrCat("row ", decoded.length() - 1,
                            " does not see in a chunk of ", chunk,
                            " what it sees alone");
      }
    }
  }
  return absl::StrCat(chunked.violation(), decoded.violation());
}

std::string CutsAreExactOrRefused(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  StampedCache cache(OptionsFor(policy, random), random.dtype());
  CacheManager& manager = cache.manager();
  int64_t longest = 0;  // since the last Clear
  for (int i = 0; i < 40; ++i) {
    const Step step = random.NextStep();
    Carry(step, cache);
    if (step.kind == Step::kClear) longest = 0;
    longest = std::max(longest, cache.length());
    const int64_t length = cache.length();
    const int64_t earliest = manager.EarliestCut(cache.id());
    if (earliest > std::max<int64_t>(0, longest - random.hold())) {
      return absl::StrCat("of ", longest, " tokens and a hold of ",
                          random.hold(), " no cut is below ", earliest);
    }
    if (earliest < length && earliest > 0 &&
        !IsWhole(*policy, cache, earliest - 1)) {
      return absl::StrCat("a cut to ", earliest, " is not exact");
    }
    if (earliest > 0 && IsWhole(*policy, cache, earliest - 2) &&
        earliest - 1 > policy->traits().protected_prefix) {
      return absl::StrCat("a cut to ", earliest - 1, " is exact and refused");
    }
    for (const int64_t bad : {earliest - 1, length + 1}) {
      if (manager.Truncate(cache.id(), bad).code() !=
              absl::StatusCode::kOutOfRange ||
          cache.length() != length) {
        return absl::StrCat("a cut of ", length, " to ", bad, " is taken");
      }
    }
    if (random.Below(8) != 0) continue;
    if (!manager.Truncate(cache.id(), earliest).ok() ||
        cache.length() != earliest) {
      return absl::StrCat("a cut to ", earliest, " is refused");
    }
  }
  return cache.violation();
}

std::string TheReservationIsEnough(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const SequenceOptions options = OptionsFor(policy, random);
  StampedCache cache(options, random.dtype());
  CacheManager& manager = cache.manager();
  const int64_t bound =
      policy->MaxResidentTokens(random.max_chunk() + random.hold());
  const int64_t wide =
      HasWidePrefix(random.dtype()) ? policy->traits().protected_prefix : 0;
  for (int i = 0; i < 40; ++i) {
    Carry(random.NextStep(), cache);
    if (manager.PeakResidentTokens(cache.id()) > bound) {
      return absl::StrCat("once ", manager.PeakResidentTokens(cache.id()),
                          " tokens were resident, ", bound, " promised");
    }
    const CacheManager::Stats stats = manager.stats();
    const int64_t touched = BlocksTouched(manager.Resident(cache.id()), wide);
    if (stats.used_blocks != touched) {
      return absl::StrCat(stats.used_blocks, " blocks in use, ", touched,
                          " hold tokens");
    }
    if (stats.used_blocks > stats.reserved_blocks) {
      return absl::StrCat(stats.used_blocks, " blocks in use, ",
                          stats.reserved_blocks, " reserved");
    }
  }
  manager.Close(cache.id());
  const CacheManager::Stats stats = manager.stats();
  if (stats.used_blocks == 0 && stats.reserved_blocks == 0) return "";
  return absl::StrCat(stats.used_blocks, " blocks in use after Close");
}

}  // namespace millrace::cache
