// A sliding window whose keys and values are computed anew as it moves.
#ifndef MILLRACE_CACHE_POLICIES_REPREFILL_POLICY_H_
#define MILLRACE_CACHE_POLICIES_REPREFILL_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"

namespace millrace::cache {

struct ReprefillOptions {
  // R: tokens seen at most before the one being decoded; at least 1.
  int64_t window_tokens = 1024;
  // E: the window's beginning moves on by so many at once; 1 to R.
  int64_t rebuild_every = 512;
  // F: tokens of the start of the text that stay; 0: none.
  int64_t pinned_tokens = 0;
};

// Keeps the first F tokens and the newest R + 2 - E to R + 1, and computes the
// latter anew whenever their beginning moves: "sliding window with
// re-computation", the quality oracle of StreamingLLM
// (https://arxiv.org/abs/2309.17453, table 1), which has E = 1.
//
// Trades time for exactness: what is visible is as if the text consisted of it
// alone. E = 1 costs R + 1 rows for each token; E = R / 2 about 2, as a pause
// of R / 2 rows now and then. A long input costs F + R + 1 rows at most where
// nobody wants logits of the tokens that it skips.
//
// For the token at text position t, b = F + E ceil(max(0, t - F - R) / E):
//   visible    p < F, or b <= p <= t; every other p is evicted
//   distance   t - p; t - (b - F) - p to a token before F
//   computed   b .. t, seeing [0, F) and [b, ..) alone
//
// INVALID_ARGUMENT names the option and the numbers if F + R + 1 exceeds the
// model's trained context, if R is 0, or if E is not 1 to R.
absl::StatusOr<std::shared_ptr<const CachePolicy>> NewReprefillPolicy(
    const ReprefillOptions& options, int64_t trained_context);

PolicyDefinition ReprefillPolicyDefinition();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_REPREFILL_POLICY_H_
