// Token omission via attention.
#ifndef MILLRACE_CACHE_POLICIES_TOVA_POLICY_H_
#define MILLRACE_CACHE_POLICIES_TOVA_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "cache/cache_policy.h"
#include "cache/policies/policy_definition.h"
#include "cache/policies/scored_policy.h"

namespace millrace::cache {

// Every E tokens each layer drops, down to N tokens, those to which the newest
// one pays least attention, on average over the layer's query heads: TOVA
// ("Transformers are Multi-State RNNs", https://arxiv.org/abs/2401.06104; E = 1
// there). The first F tokens and the newest `recent_tokens` always stay.
//
// Adapts to the text and is bounded for ever. Trades steadiness: one row
// decides what all later ones see, and near ties fall differently on different
// backends. Costs what `sinks` costs but for one row of scores each E tokens,
// and keys that have to be turned by head.
//
//   held       N after a cut, N + E at most
//   distance   within the cache; with positions=text in the text
absl::StatusOr<std::shared_ptr<const CachePolicy>> NewTovaPolicy(
    const ScoredOptions& options, int64_t trained_context);

PolicyDefinition TovaPolicyDefinition();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_TOVA_POLICY_H_
