// Parses a template. Nesting is bounded, so hostile sources cost no stack.
#ifndef MILLRACE_SERVICES_TEXT_JINJA_PARSER_H_
#define MILLRACE_SERVICES_TEXT_JINJA_PARSER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/text/jinja/syntax.h"

namespace millrace::text::jinja {

// Sources longer than this are refused.
inline constexpr size_t kMaxSourceBytes = 64 << 10;

// INVALID_ARGUMENT names the offset and what is wrong or not there.
absl::StatusOr<Block> Parse(absl::string_view source);

}  // namespace millrace::text::jinja

#endif  // MILLRACE_SERVICES_TEXT_JINJA_PARSER_H_
