// A policy by its text form, for a model of 8,192 tokens and sessions of 5,000.
#ifndef MILLRACE_TESTS_CACHE_ASKED_POLICY_H_
#define MILLRACE_TESTS_CACHE_ASKED_POLICY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cache/policies/registry.h"

namespace millrace::cache {

inline absl::StatusOr<MadePolicy> Asked(absl::string_view text,
                                        int64_t pinned = 0,
                                        bool wide_prefix = false) {
  return MakePolicy(ParsePolicy(text).value(), {.trained_context = 8192,
                                                .pinned_tokens = pinned,
                                                .max_resident_tokens = 5000,
                                                .extra_tokens = 64,
                                                .wide_prefix = wide_prefix});
}

inline absl::Status Refusal(absl::string_view text, int64_t pinned = 0) {
  return Asked(text, pinned).status();
}

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_ASKED_POLICY_H_
