// Utf8Assembler makes valid UTF-8 of the bytes of tokens, which cut characters
// wherever they like.
//
//   assembler.Add("\xC3");  // ""
//   assembler.Add("\xA9");  // "é"
//
// Not thread-safe.
#ifndef MILLRACE_SERVICES_TEXT_UTF8_ASSEMBLER_H_
#define MILLRACE_SERVICES_TEXT_UTF8_ASSEMBLER_H_

#include <string>

#include "absl/strings/string_view.h"

namespace millrace::text {

class Utf8Assembler {
 public:
  // The characters that are whole now. Bytes that can be no part of a character
  // become U+FFFD, one per maximal invalid sequence.
  std::string Add(absl::string_view bytes);

  // An unfinished character becomes U+FFFD.
  std::string Finish();

  // Whether an unfinished character is held.
  bool pending() const { return !held_.empty(); }

 private:
  std::string held_;  // at most 3 bytes
};

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_UTF8_ASSEMBLER_H_
