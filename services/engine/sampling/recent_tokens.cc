#include "services/engine/sampling/recent_tokens.h"

#include <algorithm>

namespace millrace::engine {

RecentTokens::RecentTokens(int64_t capacity)
    : ring_(static_cast<size_t>(capacity)) {}

void RecentTokens::Add(int32_t id) {
  ++total_;
  if (ring_.empty()) return;
  ring_[static_cast<size_t>(next_)] = id;
  next_ = (next_ + 1) % capacity();
  size_ = std::min(size_ + 1, capacity());
}

void RecentTokens::Add(absl::Span<const int32_t> ids) {
  for (const int32_t id : ids) Add(id);
}

void RecentTokens::RemoveLast(int64_t count) {
  total_ = std::max<int64_t>(0, total_ - count);
  const int64_t known = std::min(count, size_);
  size_ -= known;
  if (known > 0) next_ = (next_ + capacity() - known) % capacity();
}

void RecentTokens::Clear() { next_ = size_ = total_ = 0; }

void RecentTokens::Grow(int64_t capacity) {
  if (capacity <= this->capacity()) return;
  std::vector<int32_t> ring(static_cast<size_t>(capacity));
  for (int64_t i = 0; i < size_; ++i) {
    ring[static_cast<size_t>(i)] = Last(size_ - 1 - i);
  }
  ring_ = std::move(ring);
  next_ = size_;  // below the capacity, which has grown
}

}  // namespace millrace::engine
