// Names and secrets that nobody can guess.
#ifndef MILLRACE_SERVICES_SESSION_SECRETS_H_
#define MILLRACE_SERVICES_SESSION_SECRETS_H_

#include <string>

#include "absl/strings/string_view.h"

namespace millrace::session {

// `bytes` random bytes from the system, as lower-case hexadecimal digits.
// Crashes if the system has none to give.
std::string RandomHex(int bytes);

// In a time that depends on the lengths alone.
bool EqualInConstantTime(absl::string_view a, absl::string_view b);

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_SECRETS_H_
