#include "cache/visibility_ledger.h"

#include <algorithm>
#include <utility>

namespace millrace::cache {
namespace {

// The positions in `a` and not in `b`, both ascending and disjoint.
std::vector<TextRange> Subtract(const std::vector<TextRange>& a,
                                const std::vector<TextRange>& b) {
  std::vector<TextRange> rest;
  for (TextRange range : a) {
    for (const TextRange& taken : b) {
      if (taken.end <= range.begin || taken.begin >= range.end) continue;
      if (taken.begin > range.begin) rest.push_back({range.begin, taken.begin});
      range.begin = std::min(taken.end, range.end);
    }
    if (!range.empty()) rest.push_back(range);
  }
  return rest;
}

int64_t Total(const std::vector<TextRange>& ranges) {
  int64_t total = 0;
  for (const TextRange& range : ranges) total += range.size();
  return total;
}

}  // namespace

VisibilityLedger::VisibilityLedger(std::shared_ptr<const CachePolicy> policy)
    : policy_(std::move(policy)) {}

VisibilityChange VisibilityLedger::Advance(int64_t num_tokens) {
  std::vector<TextRange> evicted = EvictedRanges(num_tokens);
  VisibilityChange change{.evicted = Subtract(evicted, announced_),
                          .restored = Subtract(announced_, evicted)};
  announced_ = std::move(evicted);
  return change;
}

void VisibilityLedger::Reset() { announced_.clear(); }

int64_t VisibilityLedger::VisibleTokens(int64_t num_tokens) const {
  return num_tokens - EvictedTokens(num_tokens);
}

int64_t VisibilityLedger::EvictedTokens(int64_t num_tokens) const {
  return Total(EvictedRanges(num_tokens));
}

std::vector<TextRange> VisibilityLedger::EvictedRanges(
    int64_t num_tokens) const {
  if (num_tokens == 0) return {};
  const int64_t row = num_tokens - 1;
  return Subtract({{0, num_tokens}}, VisibleRanges(policy_->Rules(row), row));
}

}  // namespace millrace::cache
