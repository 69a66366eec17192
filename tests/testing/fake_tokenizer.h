// A tokenizer of a few pieces that a test chooses, for tests of turns and
// sessions. Encoding takes the longest piece that fits.
//
//   FakeTokenizer tokenizer({"a", "b", "ab", "\xC3"}, {"<end>"});
//   tokenizer.Encode("aba", text::SpecialTokens::kAsText);   // {2, 0}
//   tokenizer.end_of_turn_ids();                             // {4}
#ifndef MILLRACE_TESTS_TESTING_FAKE_TOKENIZER_H_
#define MILLRACE_TESTS_TESTING_FAKE_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/text/tokenizer.h"

namespace millrace::testing {

class FakeTokenizer final : public text::Tokenizer {
 public:
  // Ids count through `pieces`, then through `specials`, whose first one ends a
  // turn.
  FakeTokenizer(std::vector<std::string> pieces,
                std::vector<std::string> specials,
                std::optional<int32_t> sink_id = std::nullopt);

  // REQUIRES: `text` is made of pieces.
  std::vector<int32_t> Encode(absl::string_view text,
                              text::SpecialTokens special) const override;
  absl::string_view TokenBytes(int32_t id) const override;
  std::string Decode(absl::Span<const int32_t> ids,
                     text::SpecialTokens special) const override;
  absl::string_view Spelling(int32_t id) const override;
  std::optional<int32_t> FindSpecial(absl::string_view spelling) const override;
  std::optional<SpecialMatch> FirstSpecial(
      absl::string_view text) const override;
  bool IsSpecial(int32_t id) const override;
  bool IsEndOfTurn(int32_t id) const override;
  const std::vector<int32_t>& end_of_turn_ids() const override {
    return end_of_turn_ids_;
  }
  int32_t vocabulary_size() const override {
    return static_cast<int32_t>(pieces_.size() + specials_.size());
  }
  std::optional<int32_t> sink_id() const override { return sink_id_; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
  // Before the last token, which may still grow.
  size_t LastSafeCut(absl::string_view text,
                     text::SpecialTokens special) const override;

 private:
  // The longest token that `text` begins with; -1 if there is none.
  int32_t Longest(absl::string_view text, text::SpecialTokens special) const;

  const std::vector<std::string> pieces_;
  const std::vector<std::string> specials_;
  std::vector<int32_t> end_of_turn_ids_;
  const std::optional<int32_t> sink_id_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_FAKE_TOKENIZER_H_
