// Tells UTF-8 from other bytes.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_UTF8_H_
#define MILLRACE_BACKENDS_MODEL_FILE_UTF8_H_

#include "absl/strings/string_view.h"

namespace millrace::backends {

// Whether `bytes` is UTF-8 as RFC 3629 defines it: no overlong forms, no
// surrogates, nothing above U+10FFFF.
bool IsValidUtf8(absl::string_view bytes);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_UTF8_H_
