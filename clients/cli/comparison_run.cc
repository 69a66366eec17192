#include "clients/cli/comparison_run.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "clients/cli/common.h"
#include "clients/cli/policy_text.h"
#include "clients/cli/score_input.h"
#include "clients/cli/scoring.h"
#include "clients/cpp/status.h"

namespace millrace::cli {
namespace {

using Clock = std::chrono::steady_clock;

// Shows how far a policy is, ten times a second at most.
class Progress {
 public:
  Progress(std::string what, std::optional<uint64_t> total)
      : what_(std::move(what)), total_(total), start_(Clock::now()) {}

  void Show(uint64_t tokens) {
    const auto now = Clock::now();
    if (now - shown_ < std::chrono::milliseconds(100)) return;
    shown_ = now;
    const std::chrono::duration<double> seconds = now - start_;
    ShowProgress(absl::StrFormat(
        "%s %s %s tokens, %.0f tokens/s", what_, Bar(tokens),
        WithCommas(tokens), static_cast<double>(tokens) / seconds.count()));
  }

 private:
  std::string Bar(uint64_t tokens) const {
    constexpr uint64_t kWidth = 24;
    if (!total_ || *total_ == 0) return "";
    const uint64_t filled = std::min(tokens, *total_) * kWidth / *total_;
    return absl::StrFormat("[%s%s] %3d %%", std::string(filled, '#'),
                           std::string(kWidth - filled, '.'),
                           std::min(tokens, *total_) * 100 / *total_);
  }

  const std::string what_;
  const std::optional<uint64_t> total_;
  const Clock::time_point start_;
  Clock::time_point shown_;
};

// Reads the text under one policy after the other.
class Runner {
 public:
  // The text outlives the runner.
  Runner(client::Client& client, absl::string_view text, ScoreInput input)
      : client_(client), text_(text), input_(std::move(input)) {}

  absl::StatusOr<Contender> Run(const std::string& policy,
                                const std::string& what) {
    auto contender = RunOn(input_, policy, what);
    if (contender.ok()) return contender;
    const absl::Status why = contender.status();
    uint64_t limit = 0;
    if (client::ReasonOf(why) != "CACHE_FULL" ||
        !absl::SimpleAtoi(client::FigureOf(why, "limit"), &limit)) {
      return why;
    }
    // The server refuses what does not fit whole, so it gets what does.
    auto input = ScoreInput::FirstTokens(client_, text_, limit);
    if (!input.ok()) return input.status();
    contender = RunOn(*input, policy, what);
    if (contender.ok()) {
      contender->ended =
          Ending{client::ReasonOf(why), std::string(why.message())};
    }
    return contender;
  }

 private:
  absl::StatusOr<Contender> RunOn(const ScoreInput& input,
                                  const std::string& policy,
                                  const std::string& what) {
    Contender contender;
    contender.policy = policy;
    v1::ScoreSetup setup;
    *setup.mutable_cache_policy() = *ParsePolicy(policy);
    setup.set_per_token(true);
    setup.set_cache_update_interval_tokens(1);
    Progress progress(what, input.tokens());
    auto scored =
        Score(client_, setup, input, [&](const v1::ScoreResponse& event) {
          contender.visible.Note(event);
          for (float value : event.chunk().log_likelihoods()) {
            contender.nll.push_back(-value);
          }
          progress.Show(contender.nll.size());
        });
    ShowProgress("");
    if (!scored.ok()) return scored.status();
    contender.scored = *std::move(scored);
    return contender;
  }

  client::Client& client_;
  const absl::string_view text_;
  const ScoreInput input_;
};

// The server judges the options when a request starts: each policy gets a text
// of no tokens, so that the last one is not refused after an hour.
absl::Status CheckPolicies(client::Client& client,
                           const std::vector<std::string>& policies) {
  for (const std::string& policy : policies) {
    v1::ScoreSetup setup;
    *setup.mutable_cache_policy() = *ParsePolicy(policy);
    const auto scored = Score(client, setup, ScoreInput::Text(""),
                              [](const v1::ScoreResponse&) {});
    if (!scored.ok()) return scored.status();
  }
  return absl::OkStatus();
}

absl::StatusOr<ScoreInput> MakeInput(client::Client& client,
                                     const ComparisonRequest& request) {
  const std::string& text = request.text;
  if (request.max_input_tokens) {
    return ScoreInput::FirstTokens(client, text, *request.max_input_tokens);
  }
  // Tokens cannot be more than bytes, but for one in front.
  if (text.size() <= ScoreInput::kMaxTokenizedBytes) {
    return ScoreInput::FirstTokens(client, text, text.size() + 1);
  }
  return ScoreInput::Text(text);
}

std::string Title(const std::string& policy, size_t number, size_t of) {
  return absl::StrCat(policy.substr(0, policy.find(':')), " (", number, " of ",
                      of, ")");
}

}  // namespace

absl::StatusOr<Comparison> RunComparison(client::Client& client,
                                         const ComparisonRequest& request) {
  const auto server = client.GetServerInfo();
  if (!server.ok()) return server.status();
  const auto model = client.GetModelInfo();
  if (!model.ok()) return model.status();
  const std::vector<std::string> policies =
      request.policies.empty() ? DefaultPolicies(*server, model->model())
                               : request.policies;
  const absl::Status valid = CheckPolicies(client, policies);
  if (!valid.ok()) return valid;
  auto input = MakeInput(client, request);
  if (!input.ok()) return input.status();

  Comparison comparison;
  comparison.text_name = request.text_name;
  comparison.model = model->model().name();
  comparison.kv_bytes_per_token = model->model().kv_bytes_per_token();
  Runner runner(client, request.text, *std::move(input));
  for (const std::string& policy : policies) {
    auto contender = runner.Run(
        policy,
        Title(policy, comparison.contenders.size() + 1, policies.size()));
    if (!contender.ok()) return contender.status();
    comparison.tokens = std::max(comparison.tokens, contender->scored.tokens);
    comparison.contenders.push_back(*std::move(contender));
  }
  comparison.bucket_tokens = request.bucket_tokens > 0
                                 ? request.bucket_tokens
                                 : BucketTokens(comparison.tokens);
  return comparison;
}

}  // namespace millrace::cli
