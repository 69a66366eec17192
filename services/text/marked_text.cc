#include "services/text/marked_text.h"

#include <algorithm>

namespace millrace::text {
namespace {

// Appends the special tokens of text[begin, end), which is the template's.
void FindSpecials(const Tokenizer& tokenizer, const std::string& text,
                  size_t begin, size_t end,
                  std::vector<Tokenizer::SpecialMatch>& specials) {
  while (const auto found = tokenizer.FirstSpecial(
             absl::string_view(text).substr(begin, end - begin))) {
    specials.push_back({begin + found->begin, begin + found->end, found->id});
    begin += found->end;
  }
}

}  // namespace

std::vector<int32_t> EncodeMarked(const Tokenizer& tokenizer,
                                  const MarkedText& text) {
  std::vector<Tokenizer::SpecialMatch> specials;
  for (size_t begin = 0; begin < text.bytes.size();) {
    const char mark = text.marks[begin];
    const size_t end =
        std::min(text.marks.find_first_not_of(mark, begin), text.bytes.size());
    if (mark == MarkedText::kTemplate) {
      FindSpecials(tokenizer, text.bytes, begin, end, specials);
    }
    begin = end;
  }
  std::vector<int32_t> ids;
  size_t from = 0;
  const auto encode_until = [&](size_t end) {
    const auto plain = absl::string_view(text.bytes).substr(from, end - from);
    for (int32_t id : tokenizer.Encode(plain, SpecialTokens::kAsText)) {
      ids.push_back(id);
    }
  };
  for (const auto& special : specials) {
    encode_until(special.begin);
    ids.push_back(special.id);
    from = special.end;
  }
  encode_until(text.bytes.size());
  return ids;
}

}  // namespace millrace::text
