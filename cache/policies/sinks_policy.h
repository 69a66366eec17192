// Attention sinks and a window: the default policy of a session.
#ifndef MILLRACE_CACHE_POLICIES_SINKS_POLICY_H_
#define MILLRACE_CACHE_POLICIES_SINKS_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"

namespace millrace::cache {

struct SinksOptions {
  // S: tokens kept from the start of the text; 0 gives the plain window.
  int64_t sink_tokens = 4;
  // R: tokens seen before the one being decoded; at least 1.
  int64_t window_tokens = 1020;
  // P: tokens of the pinned system prompt; 0: none. F = max(S, P) are kept.
  int64_t pinned_tokens = 0;
};

// Keeps the first F tokens of a sequence and a window of the R tokens before
// the newest: StreamingLLM (https://arxiv.org/abs/2309.17453).
//
// Trades the distant text for decode without end: what leaves the window is
// forgotten for good, and token 1,000,000 costs what token 2,000 costs.
//
// For the token at text position t:
//   visible    p < F, or t - R <= p <= t; every other p is evicted
//   distance   t - p within the window; min(t, F + R) - p to a sink
//
// Caveat: resident keys and values were computed while evicted tokens were
// still visible, so this is not the model run again on the resident text.
//
// INVALID_ARGUMENT names the option and the numbers if the largest distance + 1
// exceeds the model's trained context, if the window is empty, or if a count is
// negative.
absl::StatusOr<std::shared_ptr<const CachePolicy>> NewSinksPolicy(
    const SinksOptions& options, int64_t trained_context);

PolicyDefinition SinksPolicyDefinition();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_SINKS_POLICY_H_
