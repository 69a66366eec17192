// The cache policy of a request that is no session.
#ifndef MILLRACE_SERVICES_ONESHOT_REQUEST_POLICY_H_
#define MILLRACE_SERVICES_ONESHOT_REQUEST_POLICY_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "cache/policies/registry.h"

namespace millrace::oneshot {

// What a server allows any request.
struct PolicyLimits {
  int64_t trained_context = 0;
  int64_t max_resident_tokens = 0;  // of one request
  int64_t chunk_tokens = 0;         // in flight beyond what is visible
  bool wide_prefix = false;         // protected tokens take the memory of two
  bool has_sink_token = false;      // of the model's training
  cache::PolicyBackend backend = {};
};

// Makes the policy that was asked for, `full` if none was. `full` without
// `max_tokens` gets `expected_tokens`, up to the trained context: what the
// prompt and the allowed output can need (nullopt: unknown).
// Errors are the registry's, their field below "cache_policy".
absl::StatusOr<cache::MadePolicy> MakeRequestPolicy(
    std::optional<cache::PolicyConfig> asked,
    std::optional<int64_t> expected_tokens, int64_t pinned_tokens,
    const PolicyLimits& limits);

// The most tokens of text that fit; nullopt for a policy that evicts.
std::optional<int64_t> TextLimit(const cache::CachePolicy& policy);

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_REQUEST_POLICY_H_
