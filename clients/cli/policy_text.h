// The text form of a cache policy, "sinks:sink_tokens=4,window_tokens=1020", as
// the message that the server wants. Knows no policy: the name is that of an
// arm of v1::CachePolicy, an option that of a field.
#ifndef MILLRACE_CLIENTS_CLI_POLICY_TEXT_H_
#define MILLRACE_CLIENTS_CLI_POLICY_TEXT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "millrace/v1/cache_policy.pb.h"

namespace millrace::cli {

// INVALID_ARGUMENT names the part that is wrong and what there is instead.
absl::StatusOr<v1::CachePolicy> ParsePolicy(absl::string_view text);

// All options that the message has.
std::string PolicyText(const v1::CachePolicy& policy);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_POLICY_TEXT_H_
