// What a policy's rules promise, at any text position.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cache/policies/registry.h"
#include "cache/visibility_ledger.h"
#include "tests/cache/contract/properties.h"
#include "tests/cache/contract/random_case.h"

namespace millrace::cache {
namespace {

std::string AtRow(int64_t t, absl::string_view what) {
  return absl::StrCat("row ", t, ": ", what);
}

// The positions of `ranges`, one by one.
std::vector<int64_t> Positions(const std::vector<TextRange>& ranges) {
  std::vector<int64_t> positions;
  for (const TextRange& range : ranges) {
    for (int64_t p = range.begin; p < range.end; ++p) positions.push_back(p);
  }
  return positions;
}

std::vector<int64_t> Seen(const CachePolicy& policy, int64_t t) {
  return Positions(VisibleRanges(policy.Rules(t), t));
}

}  // namespace

std::string RulesAreInOrder(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const int64_t t = random.Position(*policy);
  const int64_t prefix = policy->traits().protected_prefix;
  const std::vector<RunRule> rules = policy->Rules(t);
  int64_t end = 0;
  for (const RunRule& rule : rules) {
    if (rule.begin < end) return AtRow(t, "rules overlap or descend");
    if (rule.begin < prefix && rule.end > prefix) {
      return AtRow(t, "a rule goes across the end of the protected prefix");
    }
    end = rule.end;
  }
  if (!Sees(rules, t, t)) return AtRow(t, "it does not see itself");
  for (int64_t p = 0; p < std::min(prefix, t); ++p) {
    if (!Sees(rules, t, p)) {
      return AtRow(t, absl::StrCat("it does not see protected token ", p));
    }
  }
  const std::vector<int64_t> seen = Seen(*policy, t);
  for (const int64_t p : seen) {
    if (!Sees(rules, t, p)) {
      return AtRow(t, absl::StrCat("VisibleRanges adds ", p));
    }
  }
  if (static_cast<int64_t>(seen.size()) > policy->MaxResidentTokens(1)) {
    return AtRow(t, absl::StrCat("it sees ", seen.size(), " tokens, ",
                                 policy->MaxResidentTokens(1), " may be held"));
  }
  return "";
}

std::string RulesHoldUntilTheNextCut(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const int64_t t = random.Position(*policy);
  const int64_t cut = policy->NextCut(t);
  if (cut <= t) return AtRow(t, absl::StrCat("the next cut is ", cut));
  const int64_t last = std::min(cut - 1, t + 100);
  for (const int64_t later : {last, t + random.Below(last - t + 1)}) {
    if (policy->Rules(later) != policy->Rules(t)) {
      return AtRow(later, absl::StrCat("other rules than row ", t,
                                       ", before the cut at ", cut));
    }
    if (policy->NextCut(later) != cut) {
      return AtRow(later, absl::StrCat("the next cut is not ", cut));
    }
  }
  return "";
}

std::string VisibilityIsMonotone(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const int64_t t = random.Position(*policy);
  const std::vector<RunRule> rules = policy->Rules(t);
  for (const int64_t later : {t + 1, t + 1 + random.Below(100)}) {
    for (const int64_t p : Seen(*policy, later)) {
      if (p <= t && !Sees(rules, t, p)) {
        return AtRow(later, absl::StrCat("it sees ", p, ", which row ", t,
                                         " did not see any more"));
      }
    }
  }
  return "";
}

std::string DistancesAreBounded(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const int64_t t = random.Position(*policy);
  for (const RunRule& rule : policy->Rules(t)) {
    for (const int64_t p : Positions(VisibleRanges({rule}, t))) {
      const int64_t distance = rule.QueryPosition(t) - p;
      if (distance < 0 || distance > policy->MaxDistance()) {
        return AtRow(t, absl::StrCat("its distance to ", p, " is ", distance,
                                     ", not 0 to ", policy->MaxDistance()));
      }
    }
  }
  return "";
}

std::string TheLedgerIsComplete(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  VisibilityLedger ledger(policy);
  const int64_t longest =
      policy->traits().unbounded_stream ? 600 : policy->MaxDistance() + 1;
  // By position: announced as evicted, and not restored.
  std::vector<bool> account(longest);
  for (int step = 0; step < 15; ++step) {
    const int64_t n = random.Below(longest + 1);
    const VisibilityChange change = ledger.Advance(n);
    for (const int64_t p : Positions(change.evicted)) {
      if (account.at(p))
        return absl::StrCat("position ", p, " is evicted twice");
      account.at(p) = true;
    }
    for (const int64_t p : Positions(change.restored)) {
      if (!account.at(p)) return absl::StrCat(p, " is restored, never evicted");
      account.at(p) = false;
    }
    const std::vector<RunRule> rules =
        policy->Rules(std::max<int64_t>(0, n - 1));
    int64_t evicted = 0;
    for (int64_t p = 0; p < longest; ++p) {
      const bool gone = p < n && !Sees(rules, n - 1, p);
      evicted += gone;
      if (gone != account.at(p)) {
        return absl::StrCat("after ", n, " tokens the account of ", p,
                            " is wrong");
      }
    }
    if (ledger.EvictedTokens(n) != evicted ||
        ledger.VisibleTokens(n) != n - evicted) {
      return absl::StrCat("after ", n, " tokens ", evicted,
                          " are evicted, not ", ledger.EvictedTokens(n));
    }
  }
  return "";
}

std::string TheTextGivesTheSamePolicy(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const std::string text = policy->ToString();
  const auto config = ParsePolicy(text);
  if (!config.ok()) return std::string(config.status().message());
  const auto made = MakePolicy(
      *config,
      {.trained_context = std::min(policy->MaxTextTokens(), int64_t{1} << 40),
       .pinned_tokens = random.Below(500),
       .max_resident_tokens = int64_t{1} << 40,
       .extra_tokens = 1});
  if (!made.ok()) return std::string(made.status().message());
  const CachePolicy& again = *made->policy;
  const int64_t t = random.Position(*policy);
  const bool equal =
      again.Name() == policy->Name() && again.ToString() == text &&
      again.MaxResidentTokens(7) == policy->MaxResidentTokens(7) &&
      again.MaxDistance() == policy->MaxDistance() &&
      again.Rules(t) == policy->Rules(t) &&
      again.traits().protected_prefix == policy->traits().protected_prefix;
  return equal ? "" : absl::StrCat("'", text, "' gives another policy");
}

}  // namespace millrace::cache
