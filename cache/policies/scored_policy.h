// What tova, h2o and snapkv have in common: a budget, a protected prefix, the
// newest tokens, and a choice among the others by a number for each.
#ifndef MILLRACE_CACHE_POLICIES_SCORED_POLICY_H_
#define MILLRACE_CACHE_POLICIES_SCORED_POLICY_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cache/attention_scoring.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"

namespace millrace::cache {

// The options that these policies share.
struct ScoredOptions {
  int64_t budget_tokens = 1024;  // N: kept at a cut
  int64_t stride = 32;           // E: tokens between cuts, at most
  int64_t sink_tokens = 4;       // kept from the start of the text; 0 or more
  int64_t pinned_tokens = 0;     // P: F = max(sink_tokens, P) are kept
  int64_t recent_tokens = 1;     // newest ones kept; at least 1
  // Distances in the text, not in the cache: the text ends at the trained
  // context.
  bool text_positions = false;

  int64_t kept() const { return std::max(sink_tokens, pinned_tokens); }
};

// The positions 0 .. kept - 1, the newest `recent`, and those of the largest
// numbers between, ascending: `budget` in all. Of equal numbers the newer
// position stays.
// REQUIRES: kept + recent <= budget < numbers.size().
std::vector<int64_t> KeepLargest(absl::Span<const float> numbers, int64_t kept,
                                 int64_t recent, int64_t budget);

// Holds up to N + E tokens: N after each cut. Thread-safe: immutable.
class ScoredPolicy : public CachePolicy, protected AttentionScoring {
 public:
  // PolicyTraits::scores is the subclass's to set.
  ScoredPolicy(const ScoredOptions& options, int64_t trained_context)
      : options_(options), trained_context_(trained_context) {}

  PolicyTraits traits() const override;
  int64_t MaxResidentTokens(int64_t num_new) const override;
  int64_t MaxDistance() const override;
  int64_t MaxTextTokens() const override;
  std::vector<RunRule> Rules(int64_t t) const override;
  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t num_new) const override;
  const AttentionScoring* scoring() const override { return this; }

 protected:
  const ScoredOptions& options() const { return options_; }

  int64_t budget_tokens() const override { return options_.budget_tokens; }
  bool KeepsTextDistances() const override { return options_.text_positions; }
  // After each row t at which (t + 1) mod E = 0.
  int64_t NextCut(const ScoredState& state) const override;
  bool CutsAt(const ScoredState& state) const override;
  std::vector<int64_t> Survivors(absl::Span<const float> sums) const override;

 private:
  const ScoredOptions options_;
  const int64_t trained_context_;
};

// The names that the options have in one policy.
struct ScoredOptionNames {
  absl::string_view stride = "evict_stride";
  absl::string_view recent = "recent_tokens";
};

// Reads them, and the pins, over `defaults`.
struct ReadScored {
  ScoredOptions options;
  Pins pins;
};
absl::StatusOr<ReadScored> ReadScoredOptions(const PolicyOptionReader& reader,
                                             const PolicyContext& context,
                                             const ScoredOptions& defaults,
                                             const ScoredOptionNames& names);

// INVALID_ARGUMENT names the option and the numbers, if N + E exceeds the
// trained context, a count is negative or zero, or what always stays is more
// than N.
absl::Status CheckScoredOptions(const ScoredOptions& options,
                                int64_t trained_context,
                                const ScoredOptionNames& names);

// "budget_tokens=1024,evict_stride=32,sink_tokens=4,recent_tokens=1"
std::string ScoredText(const ScoredOptions& options,
                       const ScoredOptionNames& names);
// ",positions=cache"
std::string PositionsText(const ScoredOptions& options);

// The policy and its text without pins, as the registry wants both; or why
// there is none.
absl::StatusOr<MadePolicy> MadeScored(
    const absl::StatusOr<std::shared_ptr<const CachePolicy>>& policy,
    const ReadScored& read, const PolicyContext& context,
    absl::string_view text);

// The options' descriptions, those of `own` between the counts and the rest.
std::vector<PolicyOptionInfo> ScoredOptionInfos(
    const ScoredOptions& defaults, const ScoredOptionNames& names,
    std::vector<PolicyOptionInfo> own);

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_SCORED_POLICY_H_
