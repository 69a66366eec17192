// What a policy that chooses by attention promises, without a cache manager.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/cache/contract/properties.h"
#include "tests/cache/contract/random_case.h"
#include "tests/cache/contract/scored_cache.h"

namespace millrace::cache {
namespace {

// Sums of more tokens than the budget, as many as may be held at most.
std::vector<float> RandomSums(const CachePolicy& policy, RandomCase& random) {
  const int64_t budget = policy.scoring()->budget_tokens();
  const int64_t more = policy.MaxResidentTokens(1) - budget;
  std::vector<float> sums(static_cast<size_t>(budget + 1 + random.Below(more)));
  for (float& sum : sums) sum = static_cast<float>(random.Below(1000)) / 1000;
  return sums;
}

bool Contains(const std::vector<int64_t>& positions, int64_t p) {
  return std::find(positions.begin(), positions.end(), p) != positions.end();
}

// A state that a sequence may be in, with room for another token.
ScoredState RandomState(const CachePolicy& policy, RandomCase& random) {
  ScoredState state;
  state.resident = random.Below(policy.MaxResidentTokens(1));
  state.length = state.resident + random.Below(500);
  switch (random.Below(3)) {
    case 0:
      state.input_end = kUnlimited;
      break;
    case 1:
      state.input_end = state.length + 1 + random.Below(100);
      break;
    default:
      state.input_end = random.Below(state.length + 1);
  }
  return state;
}

// A sequence as the contract knows it: how many tokens are there and held.
struct CountedSequence {
  // Appends until `end`; what is wrong with it, or empty.
  std::string Append(const CachePolicy& policy, int64_t end, int64_t most) {
    const AttentionScoring& scoring = *policy.scoring();
    while (state.length < end) {
      const int64_t cut = scoring.NextCut(state);
      if (cut <= state.length) {
        return absl::StrCat("at ", state.length, " tokens the next cut is ",
                            cut);
      }
      const int64_t tokens =
          std::min({end - state.length, most, cut - state.length});
      state.length += tokens;
      state.resident += tokens;
      if (state.resident > policy.MaxResidentTokens(tokens)) {
        return absl::StrCat("at ", state.length, " tokens ", state.resident,
                            " are held, ", policy.MaxResidentTokens(tokens),
                            " promised");
      }
      const bool cuts = scoring.CutsAt(state);
      if (state.length == cut && !cuts) {
        return absl::StrCat("no cut is made at ", cut);
      }
      if (cuts) {
        state.resident = std::min(state.resident, scoring.budget_tokens());
      }
    }
    return "";
  }

  ScoredState state;
};

// Whether the sums around i and j are equal; beyond either end they are 0.
bool LooksAlike(const std::vector<float>& sums, int64_t i, int64_t j) {
  const auto at = [&](int64_t k) {
    const bool inside = k >= 0 && k < static_cast<int64_t>(sums.size());
    return inside ? sums[static_cast<size_t>(k)] : 0.0f;
  };
  constexpr int64_t kReach = 8;  // more than any policy looks to either side
  for (int64_t d = -kReach; d <= kReach; ++d) {
    if (at(i + d) != at(j + d)) return false;
  }
  return true;
}

}  // namespace

std::string CutsKeepTheBound(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const int64_t room = policy->scoring()->MostWhileWriting();
  CountedSequence sequence;
  ScoredState& state = sequence.state;
  for (int i = 0; i < 30; ++i) {
    const bool writes = random.Below(2) == 0;
    int64_t tokens = 1 + random.Below(90);
    if (writes && room != kUnlimited) {
      tokens = std::min(tokens, room - state.resident);
    }
    const int64_t end = state.length + tokens;
    state.input_end = writes ? state.length : end;
    const int64_t most = writes ? 1 : random.max_chunk();
    const std::string violation = sequence.Append(*policy, end, most);
    if (!violation.empty()) return violation;
  }
  return "";
}

std::string SurvivorsAreRepeatable(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const std::vector<float> sums = RandomSums(*policy, random);
  const auto survivors = policy->scoring()->Survivors(sums);
  // Another choice between: nothing of it may be left.
  policy->scoring()->Survivors(RandomSums(*policy, random));
  if (policy->scoring()->Survivors(sums) == survivors) return "";
  return absl::StrCat("equal sums of ", sums.size(), " tokens, others survive");
}

std::string SurvivorsFillTheBudget(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const std::vector<float> sums = RandomSums(*policy, random);
  const auto survivors = policy->scoring()->Survivors(sums);
  const int64_t budget = policy->scoring()->budget_tokens();
  if (static_cast<int64_t>(survivors.size()) != budget) {
    return absl::StrCat(survivors.size(), " survive, the budget is ", budget);
  }
  int64_t end = 0;
  for (const int64_t p : survivors) {
    if (p < end || p >= static_cast<int64_t>(sums.size())) {
      return absl::StrCat("of ", sums.size(), " tokens ", p,
                          " survives, not in order");
    }
    end = p + 1;
  }
  return "";
}

std::string ProtectedAndNewestSurvive(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const std::vector<float> sums = RandomSums(*policy, random);
  const auto survivors = policy->scoring()->Survivors(sums);
  const auto size = static_cast<int64_t>(sums.size());
  const int64_t prefix = policy->traits().protected_prefix;
  const int64_t newest = NewestKept(*policy);
  for (int64_t p = 0; p < size; ++p) {
    if (p >= prefix && p < size - newest) continue;
    if (!Contains(survivors, p)) {
      return absl::StrCat("of ", size, " tokens ", p, " does not survive; the ",
                          "first ", prefix, " and the last ", newest, " do");
    }
  }
  return "";
}

std::string TheOlderOfEqualsGoes(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  std::vector<float> sums = RandomSums(*policy, random);
  const auto size = static_cast<int64_t>(sums.size());
  // Nothing but a few peaks.
  std::fill(sums.begin(), sums.end(), 0.0f);
  for (int64_t peaks = random.Below(4); peaks > 0; --peaks) {
    sums[static_cast<size_t>(random.Below(size))] = 1;
  }
  const auto survivors = policy->scoring()->Survivors(sums);
  const int64_t newest = NewestKept(*policy);
  for (int64_t p = policy->traits().protected_prefix; p < size - newest; ++p) {
    if (Contains(survivors, p)) continue;
    for (const int64_t older : survivors) {
      if (older >= p) break;
      if (older >= policy->traits().protected_prefix &&
          LooksAlike(sums, older, p)) {
        return absl::StrCat("of equal ones ", older, " survives, ", p,
                            " does not");
      }
    }
  }
  return "";
}

std::string SurvivorsFollowTheSums(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  std::vector<float> sums = RandomSums(*policy, random);
  const int64_t prefix = policy->traits().protected_prefix;
  const int64_t newest = NewestKept(*policy);
  const int64_t candidates =
      static_cast<int64_t>(sums.size()) - prefix - newest;
  // What is always kept may be all that is kept.
  if (prefix + newest == policy->scoring()->budget_tokens()) return "";
  const int64_t most = prefix + random.Below(candidates);
  sums[static_cast<size_t>(most)] = 1000;
  // It, or a neighbour that shares in it.
  for (const int64_t p : policy->scoring()->Survivors(sums)) {
    if (p >= prefix && p < prefix + candidates && std::abs(p - most) <= 3) {
      return "";
    }
  }
  return absl::StrCat("of ", sums.size(), " tokens ", most,
                      " does not survive, which got most");
}

std::string RowsCountAlikeInAnyChunk(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const AttentionScoring& scoring = *policy->scoring();
  ScoredState state = RandomState(*policy, random);
  int64_t rows =
      std::min(1 + random.Below(60), scoring.NextCut(state) - state.length);
  if (state.input_end <= state.length) rows = 1;  // written
  std::vector<float> together(static_cast<size_t>(rows));
  const bool counts = scoring.Weights(state, absl::MakeSpan(together));
  bool any = false;
  for (int64_t i = 0; i < rows; ++i) {
    float alone = 0;
    const bool counts_alone =
        scoring.Weights(state, absl::MakeSpan(&alone, 1)) && alone != 0;
    any |= counts_alone;
    const float weight = counts ? together[static_cast<size_t>(i)] : 0;
    if (weight != (counts_alone ? alone : 0)) {
      return absl::StrCat("row ", state.length, " counts ", weight, " in a ",
                          "chunk of ", rows, ", and alone ", alone);
    }
    ++state.length;
    ++state.resident;
  }
  return any == counts ? "" : "no row counts, and they are said to";
}

std::string PlansEvictNothing(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const ScoredState state = RandomState(*policy, random);
  const TextRange held[] = {{0, state.resident}};
  SequenceView view{.length = state.length,
                    .first_row = state.length,
                    .resident = held,
                    .input_end = state.input_end};
  const auto plan = policy->Plan(view, random.Chunk());
  if (!plan.ok() && policy->traits().unbounded_stream) {
    return std::string(plan.status().message());
  }
  if (!plan.ok() || plan->evict.empty()) return "";
  return absl::StrCat(plan->evict[0].begin, " is evicted by a plan");
}

}  // namespace millrace::cache
