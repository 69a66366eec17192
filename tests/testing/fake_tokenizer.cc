#include "tests/testing/fake_tokenizer.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/text/utf8_assembler.h"

namespace millrace::testing {

FakeTokenizer::FakeTokenizer(std::vector<std::string> pieces,
                             std::vector<std::string> specials,
                             std::optional<int32_t> sink_id)
    : pieces_(std::move(pieces)),
      specials_(std::move(specials)),
      sink_id_(sink_id) {
  if (!specials_.empty()) {
    end_of_turn_ids_.push_back(static_cast<int32_t>(pieces_.size()));
  }
}

int32_t FakeTokenizer::Longest(absl::string_view text,
                               text::SpecialTokens special) const {
  const int32_t tokens = special == text::SpecialTokens::kParsed
                             ? vocabulary_size()
                             : static_cast<int32_t>(pieces_.size());
  int32_t longest = -1;
  for (int32_t id = 0; id < tokens; ++id) {
    if (!absl::StartsWith(text, Spelling(id))) continue;
    if (longest < 0 || Spelling(id).size() > Spelling(longest).size()) {
      longest = id;
    }
  }
  return longest;
}

std::vector<int32_t> FakeTokenizer::Encode(absl::string_view text,
                                           text::SpecialTokens special) const {
  std::vector<int32_t> ids;
  while (!text.empty()) {
    const int32_t id = Longest(text, special);
    if (id < 0) std::abort();
    ids.push_back(id);
    text.remove_prefix(Spelling(id).size());
  }
  return ids;
}

absl::string_view FakeTokenizer::TokenBytes(int32_t id) const {
  return IsSpecial(id) ? absl::string_view() : Spelling(id);
}

std::string FakeTokenizer::Decode(absl::Span<const int32_t> ids,
                                  text::SpecialTokens special) const {
  text::Utf8Assembler assembler;
  std::string text;
  for (const int32_t id : ids) {
    text +=
        assembler.Add(special == text::SpecialTokens::kParsed ? Spelling(id)
                                                              : TokenBytes(id));
  }
  return absl::StrCat(text, assembler.Finish());
}

absl::string_view FakeTokenizer::Spelling(int32_t id) const {
  const size_t index = static_cast<size_t>(id);
  return index < pieces_.size() ? pieces_[index]
                                : specials_.at(index - pieces_.size());
}

std::optional<int32_t> FakeTokenizer::FindSpecial(
    absl::string_view spelling) const {
  const auto it = std::find(specials_.begin(), specials_.end(), spelling);
  if (it == specials_.end()) return std::nullopt;
  return static_cast<int32_t>(pieces_.size() + (it - specials_.begin()));
}

std::optional<text::Tokenizer::SpecialMatch> FakeTokenizer::FirstSpecial(
    absl::string_view text) const {
  std::optional<SpecialMatch> first;
  for (const std::string& special : specials_) {
    const size_t begin = text.find(special);
    if (begin == absl::string_view::npos) continue;
    if (first.has_value() && first->begin <= begin) continue;
    first = SpecialMatch{begin, begin + special.size(), *FindSpecial(special)};
  }
  return first;
}

bool FakeTokenizer::IsSpecial(int32_t id) const {
  return id >= static_cast<int32_t>(pieces_.size());
}

bool FakeTokenizer::IsEndOfTurn(int32_t id) const {
  return !specials_.empty() && id == end_of_turn_ids_.front();
}

size_t FakeTokenizer::LastSafeCut(absl::string_view text,
                                  text::SpecialTokens special) const {
  size_t cut = 0, next = 0;
  while (next < text.size()) {
    cut = next;
    const int32_t id = Longest(text.substr(next), special);
    if (id < 0) break;
    next += Spelling(id).size();
  }
  return cut;
}

}  // namespace millrace::testing
