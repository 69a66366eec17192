// Matchers for statuses of refused model files.
#ifndef MILLRACE_TESTS_BACKENDS_MODEL_FILE_MODEL_FILE_MATCHERS_H_
#define MILLRACE_TESTS_BACKENDS_MODEL_FILE_MODEL_FILE_MATCHERS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "backends/model_file/invalid_file.h"
#include "gmock/gmock.h"

namespace millrace::backends {

MATCHER_P2(StatusIs, code, message, "") {
  return arg.code() == code &&
         ::testing::ExplainMatchResult(message, std::string(arg.message()),
                                       result_listener);
}

// The status has this code, the reason MODEL_FILE_INVALID, and says all words.
inline auto IsRefused(absl::StatusCode code, std::vector<std::string> words) {
  return ::testing::Truly([code, words](const absl::Status& status) {
    const auto reason = status.GetPayload(kReasonTypeUrl);
    if (status.code() != code || reason != kModelFileInvalid) return false;
    for (const std::string& word : words) {
      if (!absl::StrContains(status.message(), word)) return false;
    }
    return absl::StrContains(status.message(), "read model file '");
  });
}

}  // namespace millrace::backends

#endif  // MILLRACE_TESTS_BACKENDS_MODEL_FILE_MODEL_FILE_MATCHERS_H_
