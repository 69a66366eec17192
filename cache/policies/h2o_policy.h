// Heavy-hitter oracle.
#ifndef MILLRACE_CACHE_POLICIES_H2O_POLICY_H_
#define MILLRACE_CACHE_POLICIES_H2O_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"
#include "cache/policies/scored_policy.h"

namespace millrace::cache {

struct H2oOptions {
  ScoredOptions scored = {.recent_tokens = 512};
  // By which what a token got so far is multiplied at each row: above 0, at
  // most 1. The half-life is ln 2 / (1 - decay) rows: 693 at 0.999.
  double decay = 0.999;
  // Whether each KV head keeps tokens of its own choice, or each layer.
  ScoreScope scope = ScoreScope::kHead;
};

// Every E tokens each KV head drops, down to N tokens, those that got least
// attention since they came: H2O ("Heavy-Hitter Oracle for Efficient Generative
// Inference of Large Language Models", https://arxiv.org/abs/2306.14048; decay
// and E are 1 there). The first F tokens and the newest `recent_tokens` always
// stay.
//
//   A_j <- decay A_j + sum over the KV head's query heads of p(t, j), row by
//   row
//
// Keeps what the text comes back to. Trades time: the probabilities of every
// row are added up. With decay=1 old tokens win because they were counted
// longer, and 32-bit sums lose what is added: not for a text without end.
//
//   held       N after a cut, N + E at most
//   distance   within the cache; with positions=text in the text
//
// With recent_tokens = N - F and E = 1 it is
// `sinks:sink_tokens=F,window_tokens=N-F`.
absl::StatusOr<std::shared_ptr<const CachePolicy>> NewH2oPolicy(
    const H2oOptions& options, int64_t trained_context);

PolicyDefinition H2oPolicyDefinition();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_H2O_POLICY_H_
