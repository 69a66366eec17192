// AttentionScoring is what a policy adds to CachePolicy if it chooses what to
// keep by the attention that tokens got: which rows count, when it chooses, and
// what survives.
//
// Each layer, or each KV head of each layer, keeps tokens of its own choice, as
// many as every other. After a choice the survivors close up, in the order of
// the text: token i of those kept stands at *position i within the cache*.
//
//   rows of a chunk    sums[i] = decay * sums[i] + weight(row) * sum over the
//                      KV head's query heads of probability(row, i), row by row
//   cut                Survivors(sums of one scope) for every scope
//
// A cut changes what later rows see, so a chunk ends at the next possible one.
//
// Immutable and thread-safe, as the policy that it belongs to.
#ifndef MILLRACE_CACHE_ATTENTION_SCORING_H_
#define MILLRACE_CACHE_ATTENTION_SCORING_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/kv_view.h"

namespace millrace::cache {

// Which rows' attention a policy reads.
enum class ScoreNeed {
  kNone,
  kLastRow,      // of the row before a cut: nothing is kept from row to row
  kAccumulated,  // of many rows: a cut-off row must be taken out again
};

// What chooses for itself.
enum class ScoreScope { kLayer, kHead };

// The facts about a sequence that a cut depends on.
struct ScoredState {
  int64_t length = 0;    // tokens of the text that are computed
  int64_t resident = 0;  // of these, in the cache; the same in every scope
  // Where the input that is being read ends; kUnlimited: not yet known; at or
  // below `length`: what comes is decoded.
  int64_t input_end = 0;
};

class AttentionScoring {
 public:
  virtual ~AttentionScoring() = default;

  virtual ScoreScope scope() const = 0;

  // Tokens that every scope keeps at a cut, or all if there are no more.
  virtual int64_t budget_tokens() const = 0;

  // The text length at which the next cut will be, as far as is known: a chunk
  // ends there. Greater than state.length; kUnlimited: none in sight.
  virtual int64_t NextCut(const ScoredState& state) const = 0;

  // Whether, with these tokens computed and before the next one is appended, a
  // cut is made.
  virtual bool CutsAt(const ScoredState& state) const = 0;

  // How much the rows that begin at state.length count, [rows]; returns whether
  // any does.
  virtual bool Weights(const ScoredState& state,
                       absl::Span<float> weights) const = 0;

  // By which the sums are multiplied at each row.
  virtual float Decay() const = 0;

  // Whether a cut clears the sums; else survivors keep theirs.
  virtual bool RestartsAtCut() const = 0;

  // Input tokens, counted from the last, that are not computed before the end
  // of the input is known, since their rows count. Not 0: no other rows do, and
  // a cut clears the sums.
  virtual int64_t HeldBackTokens() const { return 0; }

  // Tokens that may be resident while the text is written; kUnlimited: what is
  // written is evicted like the rest.
  virtual int64_t MostWhileWriting() const { return kUnlimited; }

  // Whether rows look at keys over their distance in the text; else over that
  // within the cache.
  virtual bool KeepsTextDistances() const { return false; }

  // The cache positions that survive, ascending, budget_tokens() of them.
  // Deterministic; equal sums go against the older token.
  // REQUIRES: more sums than that.
  virtual std::vector<int64_t> Survivors(
      absl::Span<const float> sums) const = 0;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_ATTENTION_SCORING_H_
