// VisibilityLedger keeps the account of what a text has lost from view.
//
// Everything follows from the number of tokens so far: after n tokens, evicted
// is what row n - 1 does not see, whatever the chunks were. The union of the
// ranges announced as evicted, less those announced as restored, is exactly the
// set of evicted positions below n.
//
//   VisibilityLedger ledger(policy);
//   ledger.Advance(74);   // sinks F = 12, R = 60: {evicted [12,13)}
//   ledger.Advance(105);  // {evicted [13,44)}
//   ledger.Advance(100);  // a cut: {restored [39,44)}
//
// Under a policy that chooses by attention, evicted is what the cache holds for
// no head any more, as `held` says. Not thread-safe.
#ifndef MILLRACE_CACHE_VISIBILITY_LEDGER_H_
#define MILLRACE_CACHE_VISIBILITY_LEDGER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "cache/cache_policy.h"
#include "cache/text_range.h"

namespace millrace::cache {

struct VisibilityChange {
  std::vector<TextRange> evicted;  // no longer visible; ascending, merged
  // No longer evicted after a cut: visible again, or cut off altogether, so
  // that the next token at such a position starts with a clean account.
  std::vector<TextRange> restored;
  // Computed anew since, where the policy does so: the latest such range.
  std::vector<TextRange> recomputed = {};
  bool empty() const {
    return evicted.empty() && restored.empty() && recomputed.empty();
  }
};

class VisibilityLedger {
 public:
  // What the cache holds of the text, and all that is not yet in it: ascending,
  // the last range without end.
  using Held = std::function<std::vector<TextRange>()>;

  // `held` is asked if the policy has a scoring().
  explicit VisibilityLedger(std::shared_ptr<const CachePolicy> policy,
                            Held held = nullptr);

  // Moves to a text of `num_tokens` tokens, more or fewer than before, and
  // returns what changed since the last call.
  VisibilityChange Advance(int64_t num_tokens);

  // The text starts anew at 0.
  void Reset();

  // Tokens of a text of `num_tokens` that its last row sees, and the others.
  int64_t VisibleTokens(int64_t num_tokens) const;
  int64_t EvictedTokens(int64_t num_tokens) const;
  // What is visible of a text of `num_tokens`: ascending, disjoint.
  std::vector<TextRange> Visible(int64_t num_tokens) const;

 private:
  std::vector<TextRange> EvictedRanges(int64_t num_tokens) const;

  std::shared_ptr<const CachePolicy> policy_;
  Held held_;
  std::vector<TextRange> announced_;
  TextRange recomputed_;  // announced last
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_VISIBILITY_LEDGER_H_
