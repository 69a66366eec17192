// Half-open ranges of text positions.
#ifndef MILLRACE_CACHE_TEXT_RANGE_H_
#define MILLRACE_CACHE_TEXT_RANGE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace millrace::cache {

// The text positions begin <= p < end. A text position counts tokens from 0,
// once, for the life of a session; it is never reset and never reused while
// the session lives.
struct TextRange {
  int64_t begin = 0;
  int64_t end = 0;

  bool empty() const { return begin >= end; }
  int64_t size() const { return empty() ? 0 : end - begin; }
  friend bool operator==(const TextRange&, const TextRange&) = default;
};

// The functions below take ranges that ascend and are disjoint, and return
// such; none of those returned is empty.

// The positions of `ranges` that lie in `limits`.
std::vector<TextRange> Within(absl::Span<const TextRange> ranges,
                              const TextRange& limits);

// The positions of `ranges` that are in none of `taken`.
std::vector<TextRange> Subtract(absl::Span<const TextRange> ranges,
                                absl::Span<const TextRange> taken);

// How many positions there are.
int64_t TotalSize(absl::Span<const TextRange> ranges);

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_TEXT_RANGE_H_
