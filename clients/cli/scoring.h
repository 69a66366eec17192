// One text scored under one cache policy: what `score` tells of it, and
// `compare` for each policy.
#ifndef MILLRACE_CLIENTS_CLI_SCORING_H_
#define MILLRACE_CLIENTS_CLI_SCORING_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "clients/cli/score_input.h"
#include "clients/cpp/client.h"

namespace millrace::cli {

struct Scored {
  uint64_t tokens = 0;
  double mean_nll = 0;  // nats, of tokens 1 to tokens - 1; 0 without any
  double tokens_per_second = 0;
  uint64_t visible_tokens = 0;  // to the last token, itself included
  uint64_t peak_resident_tokens = 0;
  std::string cache_policy;  // in force, all options set

  double perplexity() const;
};

// Scores the input; the speed is that of the whole call. Calls `on_event` with
// every event. CANCELLED once the caller's InterruptFlag is raised, else the
// server's error.
absl::StatusOr<Scored> Score(
    client::Client& client, const v1::ScoreSetup& setup,
    const ScoreInput& input,
    const std::function<void(const v1::ScoreResponse&)>& on_event);

nlohmann::json ScoredJson(const Scored& scored);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_SCORING_H_
