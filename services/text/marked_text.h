// A text that knows of every byte whether it is a template's own or was handed
// in: special tokens are recognised in the former only.
#ifndef MILLRACE_SERVICES_TEXT_MARKED_TEXT_H_
#define MILLRACE_SERVICES_TEXT_MARKED_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/text/tokenizer.h"

namespace millrace::text {

struct MarkedText {
  static constexpr char kTemplate = 't';
  static constexpr char kContent = 'c';

  static MarkedText Of(absl::string_view bytes, char mark) {
    return {std::string(bytes), std::string(bytes.size(), mark)};
  }

  void Append(const MarkedText& other) {
    bytes += other.bytes;
    marks += other.marks;
  }
  MarkedText Part(size_t begin, size_t size) const {
    return {bytes.substr(begin, size), marks.substr(begin, size)};
  }

  std::string bytes;
  std::string marks;  // one for each byte
};

// Ids as of the whole text, special tokens recognised where all their bytes are
// the template's. REQUIRES: valid UTF-8.
std::vector<int32_t> EncodeMarked(const Tokenizer& tokenizer,
                                  const MarkedText& text);

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_MARKED_TEXT_H_
