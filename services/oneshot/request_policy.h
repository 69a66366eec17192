// The cache policy of a request that is no session.
#ifndef MILLRACE_SERVICES_ONESHOT_REQUEST_POLICY_H_
#define MILLRACE_SERVICES_ONESHOT_REQUEST_POLICY_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "cache/policies/registry.h"

namespace millrace::oneshot {

// Makes the policy that was asked for, `full` if none was. `full` without
// `max_tokens` gets `expected_tokens`, up to the trained context: what the
// prompt and the allowed output can need (nullopt: unknown).
// `context` is that of any request, without what this one pins. Errors are the
// registry's, their field below "cache_policy".
absl::StatusOr<cache::MadePolicy> MakeRequestPolicy(
    std::optional<cache::PolicyConfig> asked,
    std::optional<int64_t> expected_tokens, int64_t pinned_tokens,
    cache::PolicyContext context);

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_REQUEST_POLICY_H_
