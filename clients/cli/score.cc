// millrace score: how likely a text is to the model, under a cache policy.

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/policy_text.h"
#include "clients/cli/score_input.h"
#include "clients/cli/scoring.h"

namespace millrace::cli {
namespace {

struct ScoreFlags {
  std::string file = "-";
  std::string cache_policy;
  std::optional<uint64_t> max_input_tokens;
  std::string nll_out;
  bool json = false;
};

absl::StatusOr<ScoreInput> MakeInput(client::Client& client,
                                     const ScoreFlags& flags,
                                     std::string text) {
  if (!flags.max_input_tokens) return ScoreInput::Text(std::move(text));
  return ScoreInput::FirstTokens(client, text, *flags.max_input_tokens);
}

absl::Status WriteLines(const std::string& path,
                        const std::vector<float>& nll) {
  std::ofstream file(path);
  for (float value : nll) file << absl::StrFormat("%.6f\n", value);
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("cannot write the file '", path, "'"));
}

void Report(const ScoreFlags& flags, const Scored& scored) {
  if (flags.json) {
    std::cout << ScoredJson(scored) << std::endl;
    return;
  }
  std::cout << absl::StrFormat(
      "tokens          %s\nmean nll        %.4f nats\nperplexity      %.3f\n"
      "speed           %.0f tokens/s\npeak resident   %s tokens\n"
      "cache policy    %s\n",
      WithCommas(scored.tokens), scored.mean_nll, scored.perplexity(),
      scored.tokens_per_second, WithCommas(scored.peak_resident_tokens),
      scored.cache_policy);
}

int RunScore(const ScoreFlags& flags, const Globals& globals) {
  v1::ScoreSetup setup;
  setup.set_per_token(!flags.nll_out.empty());
  if (!flags.cache_policy.empty()) {
    auto policy = ParsePolicy(flags.cache_policy);
    if (!policy.ok()) return UsageError(policy.status().message());
    *setup.mutable_cache_policy() = *std::move(policy);
  }
  auto text = ReadText(flags.file);
  if (!text.ok()) return UsageError(text.status().message());
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  const auto input = MakeInput(**client, flags, *std::move(text));
  if (!input.ok()) return Fail(globals, input.status());

  InterruptFlag interrupt;
  std::vector<float> nll;
  const auto scored =
      Score(**client, setup, *input, [&](const v1::ScoreResponse& event) {
        for (float value : event.chunk().log_likelihoods()) {
          nll.push_back(-value);
        }
        if (event.has_progress()) {
          ShowProgress(absl::StrCat(WithCommas(event.progress().tokens()),
                                    " tokens scored"));
        }
      });
  ShowProgress("");
  if (!scored.ok()) return Fail(globals, scored.status());
  if (!flags.nll_out.empty()) {
    const absl::Status written = WriteLines(flags.nll_out, nll);
    if (!written.ok()) return UsageError(written.message());
  }
  Report(flags, *scored);
  return kExitOk;
}

}  // namespace

Command AddScore(CLI::App& app) {
  auto flags = std::make_shared<ScoreFlags>();
  CLI::App* command = app.add_subcommand(
      "score", "negative log-likelihood and perplexity of a text");
  command->add_option("--file", flags->file, "the text; -: standard input")
      ->capture_default_str();
  command->add_option("--cache_policy", flags->cache_policy,
                      "such as sinks:sink_tokens=4,window_tokens=252; "
                      "default: full");
  command->add_option("--max_input_tokens", flags->max_input_tokens,
                      "score the first N tokens only");
  command->add_option("--nll_out", flags->nll_out,
                      "write the nats of tokens 1, 2, ... here, one a line");
  command->add_flag("--json", flags->json, "one JSON object");
  return {command, [flags](const Globals& globals) {
            return RunScore(*flags, globals);
          }};
}

}  // namespace millrace::cli
