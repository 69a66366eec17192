// Cache policies by their text form, for tests that have no server.
#ifndef MILLRACE_TESTS_TESTING_NAMED_POLICY_H_
#define MILLRACE_TESTS_TESTING_NAMED_POLICY_H_

#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "cache/cache_policy.h"

namespace millrace::testing {

// NamedPolicy("sinks:sink_tokens=4,window_tokens=60"). Ends the process with
// the error if the text is refused.
std::shared_ptr<const cache::CachePolicy> NamedPolicy(
    absl::string_view text, int64_t trained_context = 8192);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_NAMED_POLICY_H_
