#include "services/engine/ngram_draft.h"

#include <algorithm>

namespace millrace::engine {
namespace {

// Tokens that must stand before, and those beyond which a match is as good as
// any.
constexpr size_t kShortestMatch = 4;
constexpr size_t kLongestMatch = 32;

// What a step of so many guessed tokens costs, in steps without: measured on
// the default model and two threads, `rows` of
// tests/benchmarks:model_benchmark.
constexpr double kCost[NgramDraft::kMaxTokens + 1] = {1.0, 1.2, 1.4, 1.65,
                                                      1.9, 2.2, 2.5, 2.75};

}  // namespace

void NgramDraft::Add(absl::Span<const int32_t> ids) {
  if (ids.size() > kWindow) ids.remove_prefix(ids.size() - kWindow);
  if (ids_.size() + ids.size() > 2 * kWindow) {
    ids_.erase(ids_.begin(), ids_.end() - (kWindow - ids.size()));
  }
  ids_.insert(ids_.end(), ids.begin(), ids.end());
}

void NgramDraft::RemoveLast(int64_t count) {
  ids_.resize(ids_.size() - std::min<size_t>(ids_.size(), count));
}

void NgramDraft::Clear() { ids_.clear(); }

size_t NgramDraft::MatchLength(size_t end) const {
  const size_t most = std::min(end, kLongestMatch);
  size_t length = 0;
  while (length < most &&
         ids_[end - 1 - length] == ids_[ids_.size() - 1 - length]) {
    ++length;
  }
  return length;
}

size_t NgramDraft::FindContinuation() const {
  size_t best = ids_.size(), longest = kShortestMatch - 1;
  const size_t last = ids_.size() > kWindow ? ids_.size() - kWindow : 0;
  for (size_t end = ids_.size() - 1; end > last; --end) {
    if (ids_[end - 1] != ids_.back()) continue;
    const size_t length = MatchLength(end);
    if (length <= longest) continue;
    best = end;
    longest = length;
    if (length == kLongestMatch) break;
  }
  return best;
}

bool NgramDraft::ProposesNext() {
  if (wait_ > 0) {
    --wait_;
    return false;
  }
  return !ids_.empty() && FindContinuation() != ids_.size();
}

absl::Span<const int32_t> NgramDraft::Propose(int64_t most) {
  guess_.clear();
  if (wait_ > 0) {
    --wait_;
    return guess_;
  }
  if (ids_.empty() || most < size_) return guess_;
  const size_t begin = FindContinuation();
  if (begin == ids_.size()) return guess_;
  // A text that repeats itself goes on into its own guess.
  for (size_t i = 0; i < static_cast<size_t>(size_); ++i) {
    const size_t at = begin + i;
    guess_.push_back(at < ids_.size() ? ids_[at] : guess_[at - ids_.size()]);
  }
  return guess_;
}

void NgramDraft::Learn(int proposed, int accepted) {
  if (1 + accepted > kCost[proposed]) {
    pause_ = std::max(kShortestPause, pause_ / 2);
    if (accepted == proposed) size_ = kMaxTokens;
    return;
  }
  size_ = kFirstSize;
  wait_ = pause_;
  pause_ = std::min(kLongestPause, 2 * pause_);
}

}  // namespace millrace::engine
