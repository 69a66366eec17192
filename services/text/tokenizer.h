// Tokenizer turns text into token ids and back: byte-level BPE, as the model
// was trained with.
//
//   auto tokenizer = Tokenizer::Create(file->tokenizer());
//   (*tokenizer)->Encode("Hello", SpecialTokens::kAsText);  // {19556}
//   (*tokenizer)->TokenBytes(19556);                        // "Hello"
//
// Encoding a text of n bytes costs n log n at most, for every text.
//
// Thread-safe: immutable after construction.
#ifndef MILLRACE_SERVICES_TEXT_TOKENIZER_H_
#define MILLRACE_SERVICES_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "backends/model_file/tokenizer_metadata.h"

namespace millrace::text {

// What becomes of text that spells a special token, such as "<|im_end|>".
enum class SpecialTokens { kAsText, kParsed };

class Tokenizer {
 public:
  // `sink_id` takes the place of the metadata's.
  // INVALID_ARGUMENT names the entry that is wrong; UNIMPLEMENTED a kind of
  // tokenizer that is not there, and the ones that are.
  // REQUIRES: 0 <= *sink_id < metadata.tokens.size().
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Create(
      const backends::TokenizerMetadata& metadata,
      std::optional<int32_t> sink_id = std::nullopt);

  virtual ~Tokenizer() = default;

  // Ids of the text alone: text_prefix() is not added. A byte for
  // which the vocabulary has no token is left out.
  // REQUIRES: valid UTF-8.
  virtual std::vector<int32_t> Encode(absl::string_view text,
                                      SpecialTokens special) const = 0;

  // The bytes that a token stands for; often not whole characters. Empty for a
  // special token. REQUIRES: 0 <= id < vocabulary_size().
  virtual absl::string_view TokenBytes(int32_t id) const = 0;

  // The bytes of all tokens joined, invalid UTF-8 replaced by U+FFFD. Special
  // tokens are spelled out with kParsed and left out with kAsText.
  virtual std::string Decode(absl::Span<const int32_t> ids,
                             SpecialTokens special) const = 0;

  // How a token is written, special ones too: "<|im_end|>".
  virtual absl::string_view Spelling(int32_t id) const = 0;
  virtual std::optional<int32_t> FindSpecial(
      absl::string_view spelling) const = 0;
  // The leftmost special token that the text spells, the longest there.
  struct SpecialMatch {
    size_t begin = 0, end = 0;
    int32_t id = 0;
  };
  virtual std::optional<SpecialMatch> FirstSpecial(
      absl::string_view text) const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
  // Whether the token ends a turn: end of text, end of turn.
  virtual bool IsEndOfTurn(int32_t id) const = 0;
  virtual const std::vector<int32_t>& end_of_turn_ids() const = 0;

  virtual int32_t vocabulary_size() const = 0;
  // The dedicated sink token, if the model was trained with one.
  virtual std::optional<int32_t> sink_id() const = 0;
  // The beginning-of-text token, if the model's settings want it.
  virtual std::optional<int32_t> bos_id() const = 0;
  // What stands in front of every text: these two, the sink token first. Text
  // that a chat template writes brings its own beginning-of-text token.
  std::vector<int32_t> text_prefix() const;

  // Where `text` can be cut so that the ids of the parts, joined, are those of
  // the whole, whatever follows: the largest such offset; 0 if there is none.
  virtual size_t LastSafeCut(absl::string_view text,
                             SpecialTokens special) const = 0;
};

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_TOKENIZER_H_
