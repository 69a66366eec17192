// Prompt compression by the prompt's last rows.
#ifndef MILLRACE_CACHE_POLICIES_SNAPKV_POLICY_H_
#define MILLRACE_CACHE_POLICIES_SNAPKV_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"
#include "cache/policies/scored_policy.h"

namespace millrace::cache {

struct SnapkvOptions {
  // `stride` is the option segment_tokens: input that is read, beyond the
  // budget, before it is compressed. `recent_tokens` is vote_window, W: the
  // newest rows, which vote, and stay.
  ScoredOptions scored = {.stride = 1024, .recent_tokens = 64};
  // Neighbours over which votes are averaged; odd.
  int64_t pool_kernel = 5;
};

// Compresses input: at the end of each, or when N + E tokens are held, each KV
// head keeps the first F tokens, the last W, and those of the others that the
// last W rows of the input, a vote each, paid most attention to: SnapKV ("LLM
// Knows What You are Looking for Before Generation",
// https://arxiv.org/abs/2404.14469; its input is compressed once, at its end).
// What is decoded neither votes nor is evicted.
//
// Best where the question stands at the end of what is read. Not for a text
// without end: a turn ends when N + E - W tokens are held, so that a next input
// can still be read.
//
//   V_j   sum over the rows that vote and the KV head's query heads of p(i, j)
//   U_j   mean of V over `pool_kernel` neighbours in the cache, none is 0
absl::StatusOr<std::shared_ptr<const CachePolicy>> NewSnapkvPolicy(
    const SnapkvOptions& options, int64_t trained_context);

PolicyDefinition SnapkvPolicyDefinition();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_SNAPKV_POLICY_H_
