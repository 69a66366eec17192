#include "clients/cli/scoring.h"

#include <chrono>
#include <cmath>

#include "clients/cli/common.h"
#include "clients/cli/policy_text.h"

namespace millrace::cli {
namespace {

Scored ToScored(const v1::ScoreFinished& finished, double seconds) {
  Scored scored;
  scored.tokens = finished.tokens();
  if (scored.tokens > 1) {
    scored.mean_nll =
        -finished.log_likelihood_sum() / static_cast<double>(scored.tokens - 1);
  }
  if (seconds > 0) scored.tokens_per_second = scored.tokens / seconds;
  scored.visible_tokens = finished.usage().visible_tokens();
  scored.peak_resident_tokens = finished.usage().peak_resident_tokens();
  scored.cache_policy = PolicyText(finished.cache_policy());
  return scored;
}

}  // namespace

double Scored::perplexity() const { return std::exp(mean_nll); }

absl::StatusOr<Scored> Score(
    client::Client& client, const v1::ScoreSetup& setup,
    const ScoreInput& input,
    const std::function<void(const v1::ScoreResponse&)>& on_event) {
  const auto start = std::chrono::steady_clock::now();
  const auto finished =
      client.Score(setup, input.Pieces(), [&](const v1::ScoreResponse& event) {
        on_event(event);
        return !InterruptFlag::raised();
      });
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  if (!finished.ok()) return finished.status();
  return ToScored(*finished, seconds.count());
}

nlohmann::json ScoredJson(const Scored& scored) {
  return {{"tokens", scored.tokens},
          {"mean_nll", scored.mean_nll},
          {"perplexity", scored.perplexity()},
          {"tokens_per_second", scored.tokens_per_second},
          {"visible_tokens", scored.visible_tokens},
          {"peak_resident_tokens", scored.peak_resident_tokens},
          {"cache_policy", scored.cache_policy}};
}

}  // namespace millrace::cli
