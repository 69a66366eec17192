// A window of recent tokens, and nothing else.
#ifndef MILLRACE_CACHE_POLICIES_WINDOW_POLICY_H_
#define MILLRACE_CACHE_POLICIES_WINDOW_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"

namespace millrace::cache {

struct WindowOptions {
  // R: tokens seen before the one being decoded; at least 1.
  int64_t window_tokens = 1024;
};

// Keeps the R tokens before the newest: the "window attention" of
// StreamingLLM's comparison (https://arxiv.org/abs/2309.17453).
//
// Trades quality for the simplest bound: most models were trained to look at
// their first tokens, and fall apart once these are evicted. For models that
// were trained with a sliding window or a sink of their own.
//
// For the token at text position t:
//   visible    t - R <= p <= t; every other p is evicted
//   distance   t - p
//
// INVALID_ARGUMENT names the numbers if R + 1 exceeds the model's trained
// context, or if R is 0.
absl::StatusOr<std::shared_ptr<const CachePolicy>> NewWindowPolicy(
    const WindowOptions& options, int64_t trained_context);

PolicyDefinition WindowPolicyDefinition();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_WINDOW_POLICY_H_
