#include "cache/text_range.h"

#include <algorithm>

namespace millrace::cache {

std::vector<TextRange> Within(absl::Span<const TextRange> ranges,
                              const TextRange& limits) {
  std::vector<TextRange> inside;
  for (const TextRange& range : ranges) {
    const TextRange part{std::max(range.begin, limits.begin),
                         std::min(range.end, limits.end)};
    if (!part.empty()) inside.push_back(part);
  }
  return inside;
}

std::vector<TextRange> Subtract(absl::Span<const TextRange> ranges,
                                absl::Span<const TextRange> taken) {
  std::vector<TextRange> rest;
  for (TextRange range : ranges) {
    for (const TextRange& hole : taken) {
      if (hole.end <= range.begin || hole.begin >= range.end) continue;
      if (hole.begin > range.begin) rest.push_back({range.begin, hole.begin});
      range.begin = hole.end;
    }
    if (!range.empty()) rest.push_back(range);
  }
  return rest;
}

int64_t TotalSize(absl::Span<const TextRange> ranges) {
  int64_t total = 0;
  for (const TextRange& range : ranges) total += range.size();
  return total;
}

}  // namespace millrace::cache
