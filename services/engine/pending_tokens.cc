#include "services/engine/pending_tokens.h"

#include <algorithm>

namespace millrace::engine {
namespace {

// Ids whose memory an empty queue may keep.
constexpr size_t kKeptCapacity = 1024;

}  // namespace

void PendingTokens::Append(absl::Span<const int32_t> ids, uint64_t step) {
  if (ids.empty()) return;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  if (arrivals_.empty() || arrivals_.back().step != step) {
    arrivals_.push_back({step, 0});
  }
  arrivals_.back().tokens += static_cast<int64_t>(ids.size());
}

void PendingTokens::Prepend(absl::Span<const int32_t> ids) {
  if (ids.empty()) return;
  if (arrivals_.empty()) return Append(ids, 0);
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<int64_t>(begin_));
  begin_ = 0;
  ids_.insert(ids_.begin(), ids.begin(), ids.end());
  arrivals_.front().tokens += static_cast<int64_t>(ids.size());
}

absl::Span<const int32_t> PendingTokens::First(int64_t count) const {
  return absl::MakeConstSpan(ids_.data() + begin_, static_cast<size_t>(count));
}

void PendingTokens::RemoveFirst(int64_t count) {
  begin_ += static_cast<size_t>(count);
  while (count > 0) {
    Arrival& first = arrivals_.front();
    const int64_t taken = std::min(count, first.tokens);
    count -= taken;
    first.tokens -= taken;
    if (first.tokens == 0) arrivals_.pop_front();
  }
  ReclaimMemory();
}

void PendingTokens::KeepFirst(int64_t count) {
  int64_t dropped = size() - count;
  if (dropped <= 0) return;
  ids_.resize(ids_.size() - static_cast<size_t>(dropped));
  while (dropped > 0) {
    Arrival& last = arrivals_.back();
    const int64_t taken = std::min(dropped, last.tokens);
    dropped -= taken;
    last.tokens -= taken;
    if (last.tokens == 0) arrivals_.pop_back();
  }
  ReclaimMemory();
}

void PendingTokens::ReclaimMemory() {
  if (empty()) {
    ids_.clear();
    begin_ = 0;
    if (ids_.capacity() > kKeptCapacity) ids_.shrink_to_fit();
  } else if (begin_ > ids_.size() / 2) {
    ids_.erase(ids_.begin(), ids_.begin() + static_cast<int64_t>(begin_));
    begin_ = 0;
  }
}

}  // namespace millrace::engine
