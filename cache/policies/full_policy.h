// The policy that forgets nothing.
#ifndef MILLRACE_CACHE_POLICIES_FULL_POLICY_H_
#define MILLRACE_CACHE_POLICIES_FULL_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"

namespace millrace::cache {

struct FullOptions {
  // The most tokens of the text, at least 1; no more fit.
  int64_t max_tokens = 0;
  // Lets max_tokens exceed the trained context, where the model's output breaks
  // down. For experiments.
  bool allow_beyond_trained_context = false;
};

// Keeps everything, up to max_tokens; then Plan fails with FAILED_PRECONDITION.
// Exact, and the oracle for the others. Memory grows with the text.
//
// INVALID_ARGUMENT if max_tokens is out of range.
absl::StatusOr<std::shared_ptr<const CachePolicy>> NewFullPolicy(
    const FullOptions& options, int64_t trained_context);

PolicyDefinition FullPolicyDefinition();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_FULL_POLICY_H_
