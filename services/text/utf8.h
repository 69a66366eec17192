// Whether bytes are valid UTF-8.
#ifndef MILLRACE_SERVICES_TEXT_UTF8_H_
#define MILLRACE_SERVICES_TEXT_UTF8_H_

#include <cstddef>
#include <optional>

#include "absl/strings/string_view.h"

namespace millrace::text {

// The offset of the first byte that is no part of a valid character; nullopt
// if all are.
std::optional<size_t> FindInvalidUtf8(absl::string_view text);

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_UTF8_H_
