// ScoredSlots is what a sequence keeps beside its blocks if its policy chooses
// by attention: which token every KV head has at which cache position, and what
// attention it got.
//
// Positions within the cache are called slots here. All heads fill as many;
// after a cut each has survivors of its own choice in the first of them.
//
// A cut that was due is made as late as can be, when the next tokens are
// appended: until then the last rows can be taken back. Where sums go on beyond
// a cut, rows are taken back only all together, down to the last checkpoint.
// Where a cut clears them, the last rows of an input are those that count: if
// it becomes shorter, others are, and they too are computed once more.
//
// Not thread-safe.
#ifndef MILLRACE_CACHE_SCORED_SLOTS_H_
#define MILLRACE_CACHE_SCORED_SLOTS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "cache/cache_policy.h"
#include "cache/head_table.h"
#include "cache/kv_spec.h"
#include "cache/kv_view.h"
#include "cache/sequence_record.h"
#include "cache/text_range.h"

namespace millrace::cache {

class ScoredSlots {
 public:
  // `policy` is borrowed and has a scoring().
  ScoredSlots(const CachePolicy& policy, const KvSpec& spec, int64_t capacity);

  // Text tokens less slots.
  int64_t dropped() const { return state_.dropped; }
  int64_t slots() const { return state_.length - state_.dropped; }
  int64_t length() const { return state_.length; }

  // What is read now ends at this text length: see ScoredState.
  void SetInputEnd(int64_t input_end) { state_.input_end = input_end; }
  int64_t input_end() const { return state_.input_end; }

  // How many tokens may be appended at once.
  int64_t MaxChunk() const;

  // Whether a cut is to be made before the next tokens.
  bool cut_due() const { return state_.cut_due; }
  // What is in use once it is made: slots from 0, or none.
  std::vector<TextRange> AfterCut() const;
  // Makes it: `move` is told, for each layer and KV head, which slots go to the
  // first ones, ascending; as many for all. Not called if all tokens stay.
  // REQUIRES: cut_due().
  using Move = std::function<void(int layer, int kv_head,
                                  absl::Span<const int64_t> survivors)>;
  void Cut(const Move& move);

  // Tokens are about to be computed in the next slots; tells the view.
  void Begin(int64_t tokens, KvView* view);
  void Commit(int64_t tokens);

  // The lengths to which Truncate goes back: from here to length().
  int64_t EarliestCut() const {
    return state_.dropped > 0 ? state_.checkpoint : 0;
  }
  // Cuts the text back to `length`, or to fewer tokens: those between are to be
  // computed once more.
  void Truncate(int64_t length);
  // The input that is being read ends at `input_end`, length() or beyond,
  // sooner than was said: goes back to before the rows that count now.
  void ShortenInput(int64_t input_end);
  void Clear();

  // All of it, and how it was. REQUIRES: of an equal policy, spec and capacity.
  const ScoredRecord& Record() const { return state_; }
  void Restore(const ScoredRecord& record) {
    state_ = record;
    survivors_.reset();
  }

  // Tokens that some head still has: ascending, merged.
  std::vector<TextRange> Held() const;

 private:
  // As it will be when a cut that is due is made.
  ScoredState State() const;
  void CutScope(int layer, int first_head, int heads, const Move& move);
  // Where the input of the next token begins, if that is read.
  int64_t InputBegin() const;
  void RestoreCheckpoint(int64_t length);
  std::vector<TextRange> Survivors() const;

  const AttentionScoring& scoring_;
  const bool accumulates_;  // from row to row
  const bool goes_on_;      // and beyond a cut
  ScoredRecord state_;
  // What the last cut left, once somebody has asked.
  mutable std::optional<std::vector<TextRange>> survivors_;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_SCORED_SLOTS_H_
