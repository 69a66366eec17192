// Says when a client should hear what has been evicted: the first eviction at
// once, then at most once per interval, and at the end what is left.
//
//   CacheReporter reporter(policy, 256);
//   if (auto update = reporter.Advance(length)) Send(*update);
//   if (auto update = reporter.Finish(length)) Send(*update);
#ifndef MILLRACE_SERVICES_ONESHOT_CACHE_REPORTER_H_
#define MILLRACE_SERVICES_ONESHOT_CACHE_REPORTER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "cache/cache_policy.h"
#include "cache/visibility_ledger.h"
#include "services/session/event.h"

namespace millrace::oneshot {

class CacheReporter {
 public:
  CacheReporter(std::shared_ptr<const cache::CachePolicy> policy,
                int64_t interval_tokens)
      : policy_(policy),
        ledger_(std::move(policy)),
        interval_tokens_(interval_tokens) {}

  // The text has `length` tokens now.
  std::optional<session::CacheUpdated> Advance(int64_t length);
  std::optional<session::CacheUpdated> Finish(int64_t length);

  const cache::VisibilityLedger& ledger() const { return ledger_; }

 private:
  std::shared_ptr<const cache::CachePolicy> policy_;
  cache::VisibilityLedger ledger_;
  const int64_t interval_tokens_;
  std::optional<int64_t> last_;  // length at the last update
};

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_CACHE_REPORTER_H_
