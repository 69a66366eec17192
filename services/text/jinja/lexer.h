// Cuts the source of a template into texts, tags and the tokens within tags,
// white space already trimmed as chat templates expect it (trim_blocks and
// lstrip_blocks of Jinja2, no trailing newline).
#ifndef MILLRACE_SERVICES_TEXT_JINJA_LEXER_H_
#define MILLRACE_SERVICES_TEXT_JINJA_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace::text::jinja {

struct Token {
  enum class Kind {
    kText,         // outside of tags
    kBeginBlock,   // {%
    kEndBlock,     // %}
    kBeginOutput,  // {{
    kEndOutput,    // }}
    kName,
    kString,  // escapes resolved
    kNumber,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  size_t offset = 0;  // in the source, for messages
};

// The last token is kEnd. INVALID_ARGUMENT names the offset.
absl::StatusOr<std::vector<Token>> Tokenise(absl::string_view source);

}  // namespace millrace::text::jinja

#endif  // MILLRACE_SERVICES_TEXT_JINJA_LEXER_H_
