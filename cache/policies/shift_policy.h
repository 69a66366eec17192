// The context shift of llama.cpp, for comparison.
#ifndef MILLRACE_CACHE_POLICIES_SHIFT_POLICY_H_
#define MILLRACE_CACHE_POLICIES_SHIFT_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"

namespace millrace::cache {

struct ShiftOptions {
  // C: tokens that a row sees at most, itself included; at least 2.
  int64_t context_tokens = 1024;
  // Tokens kept from the start of the text; 0 or more.
  int64_t n_keep = 4;
  // D: tokens dropped at once; at least 1.
  int64_t n_discard = 510;
  // P: tokens of the pinned system prompt; 0: none. F = max(n_keep, P) are
  // kept.
  int64_t pinned_tokens = 0;
};

// Keeps the first F tokens and the newest, and drops D at once when C are
// there: the context shift of llama.cpp's main and server (its --keep, and
// issue #3440), without its rewriting of keys.
//
// Trades steadiness for fewer evictions: a row sees C - D + 1 to C tokens, and
// what the model says changes a little at each shift. With n_discard=1 it is
// `sinks:sink_tokens=n_keep,window_tokens=C-n_keep-1`.
//
// For the token at text position t, after k = 0 shifts if t < C, else
// 1 + floor((t - C) / D):
//   visible    p < F, or F + k D <= p <= t; every other p is evicted
//   distance   t - p; t - k D - p to a token that is kept
//
// INVALID_ARGUMENT names the option and the numbers if C exceeds the model's
// trained context, if D is not 1 to C - F - 1, or if a count is negative.
absl::StatusOr<std::shared_ptr<const CachePolicy>> NewShiftPolicy(
    const ShiftOptions& options, int64_t trained_context);

PolicyDefinition ShiftPolicyDefinition();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_SHIFT_POLICY_H_
