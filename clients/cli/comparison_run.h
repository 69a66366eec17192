// Makes a comparison: the server scores the text under one policy after the
// other, while a progress bar shows how far it is.
#ifndef MILLRACE_CLIENTS_CLI_COMPARISON_RUN_H_
#define MILLRACE_CLIENTS_CLI_COMPARISON_RUN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/cli/comparison.h"
#include "clients/cpp/client.h"

namespace millrace::cli {

struct ComparisonRequest {
  std::string text;  // valid UTF-8
  std::string text_name;
  std::vector<std::string> policies;  // ParsePolicy takes each; empty: defaults
  std::optional<uint64_t> max_input_tokens;
  uint64_t bucket_tokens = 0;  // 0: by the length of the text
};

// The server's error if it refuses a policy, before any text is scored under
// another; CANCELLED after Ctrl-C. That a policy is full is no error: it has
// then read what fits.
absl::StatusOr<Comparison> RunComparison(client::Client& client,
                                         const ComparisonRequest& request);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_COMPARISON_RUN_H_
