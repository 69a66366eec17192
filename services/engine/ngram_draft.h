// NgramDraft guesses how a text goes on: as it did where its last tokens stood
// before (prompt lookup; Saxena, "Prompt Lookup Decoding", 2023).
//
//   NgramDraft draft;
//   draft.Add(ids);                               // all of the text, in order
//   const auto guess = draft.Propose(/*most=*/7); // perhaps nothing
//   draft.Learn(guess.size(), /*accepted=*/2);    // two of them came true
//
// A guess costs computing its tokens along with the one that is certain, so it
// is made only where guesses have paid lately: after one that did not, none is
// made for a while, and for twice as long each time.
//
// Pure; not thread-safe.
#ifndef MILLRACE_SERVICES_ENGINE_NGRAM_DRAFT_H_
#define MILLRACE_SERVICES_ENGINE_NGRAM_DRAFT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace millrace::engine {

class NgramDraft {
 public:
  // The most tokens of a guess.
  static constexpr int kMaxTokens = 7;
  // So much of the text is looked through, from its end.
  static constexpr int64_t kWindow = 4096;

  // The text goes on; its last `count` tokens are cut off; it begins anew.
  void Add(absl::Span<const int32_t> ids);
  void RemoveLast(int64_t count);
  void Clear();

  // The next tokens, at most `most`. Called once before each token that is
  // written. Borrowed until the next call.
  absl::Span<const int32_t> Propose(int64_t most);

  // Before a token that could be computed without a guess, while the one before
  // it is not known yet: whether the text so far goes on as it did before. If
  // so Propose is to be called once that is known; if not, this was in its
  // place.
  bool ProposesNext();

  // Of a guess of `proposed` tokens, 1 or more, the first `accepted` came true.
  void Learn(int proposed, int accepted);

 private:
  static constexpr int kFirstSize = 3;
  static constexpr int64_t kShortestPause = 8;
  static constexpr int64_t kLongestPause = 512;

  // Where the text went on after the longest match of its end, the latest of
  // these; size() if there is no match.
  size_t FindContinuation() const;
  size_t MatchLength(size_t end) const;

  std::vector<int32_t> ids_;  // the last of the text; at most 2 * kWindow
  std::vector<int32_t> guess_;
  int size_ = kFirstSize;           // of the next guess
  int64_t wait_ = 0;                // tokens until then
  int64_t pause_ = kShortestPause;  // after the next guess that does not pay
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_NGRAM_DRAFT_H_
