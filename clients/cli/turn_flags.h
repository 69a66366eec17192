// The flags that say how the model writes: one for each field of
// SamplingParams, StoppingOptions and ResponseOptions, under its name.
#ifndef MILLRACE_CLIENTS_CLI_TURN_FLAGS_H_
#define MILLRACE_CLIENTS_CLI_TURN_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "millrace/v1/common.pb.h"

namespace CLI {
class App;
}

namespace millrace::cli {

// What was given; the rest is the server's to choose.
struct TurnFlags {
  std::optional<float> temperature, top_p, min_p;
  std::optional<float> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint32_t> top_k, penalty_window_tokens;
  std::optional<uint64_t> seed;
  std::vector<std::string> logit_bias;  // "ID=BIAS"
  std::string speculation;              // "ngram" or "none"
  std::optional<uint64_t> max_tokens, min_tokens;
  bool unlimited = false;
  std::vector<std::string> stop_strings;
  std::vector<uint32_t> stop_token_ids;
  bool ignore_end_of_turn = false;
  std::optional<double> time_limit;  // seconds
  std::optional<uint32_t> repetition_guard;
};

// Adds the flags to a command.
void AddTurnFlags(CLI::App& command, TurnFlags& flags);

// INVALID_ARGUMENT names a flag whose value is no value at all; ranges are the
// server's to check.
absl::Status ToSampling(const TurnFlags& flags, v1::SamplingParams& sampling);
void ToStopping(const TurnFlags& flags, v1::StoppingOptions& stopping);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_TURN_FLAGS_H_
