#include "services/oneshot/cache_reporter.h"

#include <algorithm>

namespace millrace::oneshot {

std::optional<session::CacheUpdated> CacheReporter::Advance(int64_t length) {
  if (last_ && length - *last_ < interval_tokens_) return std::nullopt;
  return Finish(length);
}

std::optional<session::CacheUpdated> CacheReporter::Finish(int64_t length) {
  const cache::VisibilityChange change = ledger_.Advance(length);
  if (change.empty()) return std::nullopt;
  last_ = length;
  session::CacheUpdated update;
  update.evicted = change.evicted;
  update.restored = change.restored;
  const int64_t visible = ledger_.VisibleTokens(length);
  update.visible_tokens = visible;
  update.text_position = length;
  update.total_evicted_tokens = length - visible;
  update.sink_tokens = static_cast<uint32_t>(
      std::min(policy_->traits().protected_prefix, visible));
  update.window_tokens = static_cast<uint32_t>(visible - update.sink_tokens);
  return update;
}

}  // namespace millrace::oneshot
