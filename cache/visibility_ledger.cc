#include "cache/visibility_ledger.h"

#include <utility>

namespace millrace::cache {

VisibilityLedger::VisibilityLedger(std::shared_ptr<const CachePolicy> policy,
                                   Held held)
    : policy_(std::move(policy)), held_(std::move(held)) {}

VisibilityChange VisibilityLedger::Advance(int64_t num_tokens) {
  std::vector<TextRange> evicted = EvictedRanges(num_tokens);
  VisibilityChange change{.evicted = Subtract(evicted, announced_),
                          .restored = Subtract(announced_, evicted)};
  announced_ = std::move(evicted);
  if (policy_->traits().recomputes && num_tokens > 0) {
    const TextRange range = policy_->Recomputes(num_tokens - 1);
    if (!range.empty() && !(range == recomputed_)) {
      change.recomputed.push_back(range);
    }
    recomputed_ = range;
  }
  return change;
}

void VisibilityLedger::Reset() {
  announced_.clear();
  recomputed_ = {};
}

int64_t VisibilityLedger::VisibleTokens(int64_t num_tokens) const {
  return num_tokens - EvictedTokens(num_tokens);
}

int64_t VisibilityLedger::EvictedTokens(int64_t num_tokens) const {
  return TotalSize(EvictedRanges(num_tokens));
}

std::vector<TextRange> VisibilityLedger::EvictedRanges(
    int64_t num_tokens) const {
  const TextRange text{0, num_tokens};
  return Subtract({text}, Visible(num_tokens));
}

std::vector<TextRange> VisibilityLedger::Visible(int64_t num_tokens) const {
  if (num_tokens == 0) return {};
  if (policy_->scoring() != nullptr) return Within(held_(), {0, num_tokens});
  const int64_t row = num_tokens - 1;
  return VisibleRanges(policy_->Rules(row), row);
}

}  // namespace millrace::cache
