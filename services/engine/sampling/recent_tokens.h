// RecentTokens remembers the last tokens of a text, evicted from the cache or
// not.
//
//   RecentTokens recent(512);
//   recent.Add(id);
//   recent.Last(0);   // the newest, id
//
// Not thread-safe.
#ifndef MILLRACE_SERVICES_ENGINE_SAMPLING_RECENT_TOKENS_H_
#define MILLRACE_SERVICES_ENGINE_SAMPLING_RECENT_TOKENS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace millrace::engine {

class RecentTokens {
 public:
  // Remembers the last `capacity` tokens; 0 or more.
  explicit RecentTokens(int64_t capacity = 0);

  void Add(int32_t id);
  void Add(absl::Span<const int32_t> ids);

  // The last `count` tokens were cut off, or as many as are remembered; what
  // came before them is as new. REQUIRES: no turn is running.
  void RemoveLast(int64_t count);
  void Clear();

  // Remembers at least `capacity` tokens from now on.
  void Grow(int64_t capacity);

  // The token added `age` tokens before the newest.
  // REQUIRES: 0 <= age < size().
  int32_t Last(int64_t age) const {
    return ring_[static_cast<size_t>((next_ + capacity() - 1 - age) %
                                     capacity())];
  }

  // Tokens remembered: 0 .. capacity().
  int64_t size() const { return size_; }
  int64_t capacity() const { return static_cast<int64_t>(ring_.size()); }
  // Tokens ever added, less those removed.
  int64_t total() const { return total_; }

 private:
  std::vector<int32_t> ring_;
  int64_t next_ = 0;  // index in ring_ of the next token
  int64_t size_ = 0;
  int64_t total_ = 0;
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SAMPLING_RECENT_TOKENS_H_
