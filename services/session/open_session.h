// What has to be decided before a session can be opened: its format, the tokens
// of its system block, its policy.
#ifndef MILLRACE_SERVICES_SESSION_OPEN_SESSION_H_
#define MILLRACE_SERVICES_SESSION_OPEN_SESSION_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "cache/policies/registry.h"
#include "services/session/event.h"
#include "services/session/session_store.h"

namespace millrace::session {

struct PreparedSession {
  EffectiveOptions options;
  cache::MadePolicy policy;
  std::vector<int32_t> system_ids;
};

// Any thread. INVALID_ARGUMENT for options that do not fit the model,
// FAILED_PRECONDITION if there is no chat template and chat is asked for.
absl::StatusOr<PreparedSession> PrepareSession(const OpenOptions& open,
                                               const StoreOptions& options,
                                               const StoreDependencies& deps);

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_OPEN_SESSION_H_
