#include "services/session/cache_reporter.h"

#include <algorithm>

namespace millrace::session {

std::optional<CacheUpdated> CacheReporter::Advance(int64_t length,
                                                   int64_t interval_tokens) {
  if (last_) last_ = std::min(*last_, length);  // after a cut
  if (last_ && length - *last_ < interval_tokens) return std::nullopt;
  return ReportAll(length);
}

std::optional<CacheUpdated> CacheReporter::ReportAll(int64_t length) {
  const cache::VisibilityChange change = ledger_.Advance(length);
  if (change.empty()) return std::nullopt;
  last_ = length;
  for (const cache::TextRange& range : change.evicted) {
    total_evicted_ += range.size();
  }
  CacheUpdated update;
  update.evicted = change.evicted;
  update.restored = change.restored;
  update.recomputed = change.recomputed;
  const int64_t visible = ledger_.VisibleTokens(length);
  update.visible_tokens = static_cast<uint64_t>(visible);
  update.text_position = static_cast<uint64_t>(length);
  update.total_evicted_tokens = static_cast<uint64_t>(length - visible);
  update.sink_tokens = static_cast<uint32_t>(
      std::min(policy_->traits().protected_prefix, visible));
  update.window_tokens = static_cast<uint32_t>(visible - update.sink_tokens);
  return update;
}

void CacheReporter::Reset() {
  ledger_.Reset();
  last_.reset();
}

int64_t CacheReporter::ForgottenTokens(cache::TextRange range,
                                       int64_t length) const {
  if (range.empty() || length == 0) return 0;
  int64_t seen = 0;
  for (const cache::TextRange& visible : ledger_.Visible(length)) {
    seen += std::max<int64_t>(0, std::min(visible.end, range.end) -
                                     std::max(visible.begin, range.begin));
  }
  return range.size() - seen;
}

}  // namespace millrace::session
