// A half-open range of text positions.
#ifndef MILLRACE_CACHE_TEXT_RANGE_H_
#define MILLRACE_CACHE_TEXT_RANGE_H_

#include <cstdint>

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

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_TEXT_RANGE_H_
