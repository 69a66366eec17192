// CacheReporter says when a client should hear what has been evicted: the first
// eviction at once, then at most once per interval, and on demand.
//
//   CacheReporter reporter(policy, [&] { return sequence->Held(); });
//   if (auto update = reporter.Advance(74, 256)) Send(*update);
//   if (auto update = reporter.ReportAll(105)) Send(*update);
//
// The union of what it reports as evicted, less what it reports as restored, is
// exactly what a text of that length no longer sees. Not thread-safe.
#ifndef MILLRACE_SERVICES_SESSION_CACHE_REPORTER_H_
#define MILLRACE_SERVICES_SESSION_CACHE_REPORTER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "cache/cache_policy.h"
#include "cache/text_range.h"
#include "cache/visibility_ledger.h"
#include "services/session/event.h"

namespace millrace::session {

class CacheReporter {
 public:
  // `held` as VisibilityLedger wants it.
  CacheReporter(std::shared_ptr<const cache::CachePolicy> policy,
                cache::VisibilityLedger::Held held)
      : policy_(policy), ledger_(std::move(policy), std::move(held)) {}

  // The text has `length` tokens now; the last report may be new enough.
  std::optional<CacheUpdated> Advance(int64_t length, int64_t interval_tokens);
  // The same, whatever was reported last.
  std::optional<CacheUpdated> ReportAll(int64_t length);
  // The text starts anew at 0.
  void Reset();

  // The positions of `range` that a text of `length` tokens no longer sees.
  int64_t ForgottenTokens(cache::TextRange range, int64_t length) const;
  int64_t VisibleTokens(int64_t length) const {
    return ledger_.VisibleTokens(length);
  }
  // Announced as evicted since the start, whether restored later or not.
  int64_t total_evicted() const { return total_evicted_; }

 private:
  const std::shared_ptr<const cache::CachePolicy> policy_;
  cache::VisibilityLedger ledger_;
  std::optional<int64_t> last_;  // length at the last update
  int64_t total_evicted_ = 0;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_CACHE_REPORTER_H_
