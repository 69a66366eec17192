// ScoredSlots is what a sequence keeps beside its blocks if its policy chooses
// by attention: which token every KV head has at which cache position, and what
// attention it got.
//
// Positions within the cache are called slots here. All heads fill as many;
// after a cut each has survivors of its own choice in the first of them.
//
// A cut that was due is made as late as can be, when the next tokens are
// appended: until then the last rows can be taken back. Those that counted in
// sums that grow from row to row can be taken back only all together, down to
// the last checkpoint, and are computed once more.
//
// Not thread-safe.
#ifndef MILLRACE_CACHE_SCORED_SLOTS_H_
#define MILLRACE_CACHE_SCORED_SLOTS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "cache/cache_policy.h"
#include "cache/head_table.h"
#include "cache/kv_spec.h"
#include "cache/kv_view.h"
#include "cache/text_range.h"

namespace millrace::cache {

class ScoredSlots {
 public:
  // `policy` is borrowed and has a scoring().
  ScoredSlots(const CachePolicy& policy, const KvSpec& spec, int64_t capacity);

  // Text tokens less slots.
  int64_t dropped() const { return dropped_; }
  int64_t slots() const { return length_ - dropped_; }
  int64_t length() const { return length_; }

  // What is read now ends at this text length: see ScoredState.
  void SetInputEnd(int64_t input_end) { input_end_ = input_end; }
  int64_t input_end() const { return input_end_; }

  // How many tokens may be appended at once.
  int64_t MaxChunk() const;

  // Whether a cut is to be made before the next tokens.
  bool cut_due() const { return cut_due_; }
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
  int64_t EarliestCut() const { return dropped_ > 0 ? checkpoint_ : 0; }
  // Cuts the text back to `length`, or to fewer tokens: those between are to be
  // computed once more.
  void Truncate(int64_t length);
  void Clear();

  // Tokens that some head still has: ascending, merged.
  std::vector<TextRange> Held() const;

 private:
  // As it will be when a cut that is due is made.
  ScoredState State() const;
  void CutScope(int layer, int first_head, int heads, const Move& move);
  void Checkpoint();
  void Restore(int64_t length);

  const AttentionScoring& scoring_;
  const bool accumulates_;
  int64_t length_ = 0;   // text tokens that are computed
  int64_t dropped_ = 0;  // of these, in no slot
  int64_t input_end_ = 0;
  bool cut_due_ = false;
  // The length at the last cut, or at what would have been one, and the sums as
  // they were there.
  int64_t checkpoint_ = 0;
  int64_t counted_end_ = 0;  // one past the last row that counted in the sums
  bool counts_ = false;      // the rows of the last Begin do
  HeadTable<int64_t> positions_;  // in the text
  HeadTable<float> sums_, checkpoint_sums_;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_SCORED_SLOTS_H_
