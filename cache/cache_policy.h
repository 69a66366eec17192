// A CachePolicy decides which tokens of a sequence stay in the cache.
//
// It is arithmetic on text positions: told what a sequence holds, it names the
// ranges to evict and the rules by which rows see the rest. The cache manager
// carries that out. A policy never sees a slot, a device, a lock or a clock.
//
//   absl::StatusOr<std::shared_ptr<const CachePolicy>> policy =
//       NewSinksPolicy({.sink_tokens = 4, .window_tokens = 1020}, 8192);
//   policy->MaxResidentTokens(64);   // 1088: 4 + 1020 + 64
//   policy->Rules(5000);             // {[0,4) cap 1024}, {[4,..) window 1020}
//
// Thread-safe: immutable after construction. One object serves all sequences
// with equal options and an equal pinned prefix. Policies are made through
// cache/policies/registry.h.
#ifndef MILLRACE_CACHE_CACHE_POLICY_H_
#define MILLRACE_CACHE_CACHE_POLICY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cache/attention_scoring.h"
#include "cache/eviction_plan.h"
#include "cache/kv_view.h"
#include "cache/sequence_view.h"
#include "cache/text_range.h"

namespace millrace::cache {

// What callers may rely on, whatever the policy's options are.
struct PolicyTraits {
  // The visible set of a row is a function of its text position and the
  // options alone: how the input is cut into chunks never matters.
  bool chunk_invariant = true;
  // Memory and distances are bounded for a text of any length.
  bool unbounded_stream = true;
  // Tokens at the start of the text that are never evicted.
  int64_t protected_prefix = 0;
  // Where the rules change, what is still visible is computed anew, as if the
  // text began there: see Recomputes and CacheManager::Rebuild.
  bool recomputes = false;
  // The attention that the policy chooses by: see CachePolicy::scoring.
  ScoreNeed scores = ScoreNeed::kNone;
};

class CachePolicy {
 public:
  virtual ~CachePolicy() = default;

  // The stable name, such as "sinks". It is stored with a sequence: if Plan or
  // Rules change so that a stored sequence would go on differently, the name
  // must change too.
  virtual absl::string_view Name() const = 0;

  // The text form, what was resolved in numbers, in a fixed order, such as
  // "sinks:sink_tokens=4,window_tokens=1020,...". Parses back to an equal
  // policy, whatever is pinned there.
  virtual std::string ToString() const = 0;

  virtual PolicyTraits traits() const = 0;

  // The most tokens a sequence holds while `num_new` are appended at once, each
  // of them visible to some row. An upper bound, and a promise: admission
  // relies on it.
  // REQUIRES: num_new >= 1.
  virtual int64_t MaxResidentTokens(int64_t num_new) const = 0;

  // The largest distance between a query and a key that any row uses; none is
  // negative.
  virtual int64_t MaxDistance() const = 0;

  // The rules by which the rows from text position t to NextCut(t) - 1 see the
  // cache. Ascending, disjoint; together with `Plan` they are the policy. A
  // rule lies within the protected prefix or beyond it. Monotone: a position
  // that row t does not see is seen by no later row. Every row sees itself.
  virtual std::vector<RunRule> Rules(int64_t t) const = 0;

  // The first text position after t from which other rules hold. A chunk ends
  // there. kUnlimited, the default: the same rules hold for ever.
  virtual int64_t NextCut(int64_t t) const { return kUnlimited; }

  // What has been computed anew, seeing as Rules(t) says, before row t: from
  // the first visible token behind the protected prefix to the row at which
  // these rules began; empty before the first time. Only with
  // traits().recomputes.
  virtual TextRange Recomputes(int64_t t) const { return {}; }

  // How the policy chooses by attention; null, unless traits().scores. With it
  // the positions of Rules are those within the cache, the same for all t, and
  // Plan has nothing to evict. Lives as long as the policy.
  virtual const AttentionScoring* scoring() const { return nullptr; }

  // The most tokens that a text may have; kUnlimited, the default: the policy
  // evicts, or stops by what is resident.
  virtual int64_t MaxTextTokens() const { return kUnlimited; }

  // The ranges to evict before `num_new` tokens are appended: everything
  // resident that no row at or after `view.first_row` sees. Idempotent and
  // deterministic: equal arguments give equal answers, and planning again after
  // applying gives an empty plan. `view` is borrowed for the call.
  // Fails with FAILED_PRECONDITION, naming the numbers, if the tokens do not
  // fit and the policy may not evict: never with an `unbounded_stream`.
  // REQUIRES: num_new >= 1.
  virtual absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                            int64_t num_new) const = 0;
};

// The ranges that row t sees, its own position included: what `rules` give,
// ascending, disjoint, adjacent ones merged.
std::vector<TextRange> VisibleRanges(absl::Span<const RunRule> rules,
                                     int64_t t);

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_CACHE_POLICY_H_
