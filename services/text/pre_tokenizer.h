// PreTokenizer cuts a text into the pieces within which byte pairs are merged:
// words with the space before them, digits, punctuation, white space.
//
// The expressions are those that the models' own tokenizers were published
// with, in one expression each, matched by PCRE2 from left to right. None looks
// behind, so a text can be cut at any boundary that no later text can move.
//
// Thread-safe: immutable after construction.
#ifndef MILLRACE_SERVICES_TEXT_PRE_TOKENIZER_H_
#define MILLRACE_SERVICES_TEXT_PRE_TOKENIZER_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace::text {

class PreTokenizer {
 public:
  // By the name of GGUF's tokenizer.ggml.pre. UNIMPLEMENTED names those that
  // there are.
  static absl::StatusOr<std::unique_ptr<const PreTokenizer>> Create(
      absl::string_view name);
  ~PreTokenizer();

  // Calls `take` with one piece after the other; joined they are the text.
  // REQUIRES: valid UTF-8.
  void ForEach(absl::string_view text,
               const std::function<void(absl::string_view)>& take) const;

  // The end of the last piece that no text to come can change, and before which
  // the text alone has the same pieces; 0 if there is none.
  size_t LastStableBoundary(absl::string_view text) const;

 private:
  struct Expression;
  explicit PreTokenizer(std::unique_ptr<Expression> expression);

  // Bytes of the piece at the start of `rest`; 0 if it could be longer with
  // more text and `may_grow` asks for that.
  size_t Match(absl::string_view rest, bool may_grow) const;

  const std::unique_ptr<Expression> expression_;
};

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_PRE_TOKENIZER_H_
