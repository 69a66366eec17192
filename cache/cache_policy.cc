#include "cache/cache_policy.h"

#include <algorithm>

namespace millrace::cache {

std::vector<TextRange> VisibleRanges(absl::Span<const RunRule> rules,
                                     int64_t t) {
  std::vector<TextRange> visible;
  for (const RunRule& rule : rules) {
    const TextRange range{rule.FirstVisible(t), std::min(rule.end, t + 1)};
    if (range.empty()) continue;
    if (!visible.empty() && visible.back().end == range.begin) {
      visible.back().end = range.end;
    } else {
      visible.push_back(range);
    }
  }
  return visible;
}

}  // namespace millrace::cache
