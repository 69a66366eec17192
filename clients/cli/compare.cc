// millrace compare: one text under several cache policies, side by side.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/comparison.h"
#include "clients/cli/comparison_plot.h"
#include "clients/cli/comparison_report.h"
#include "clients/cli/policy_text.h"
#include "clients/cli/score_input.h"
#include "clients/cli/scoring.h"
#include "clients/cpp/status.h"

namespace millrace::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct CompareFlags {
  std::string file = "-";
  std::vector<std::string> policies;
  std::optional<uint64_t> max_input_tokens;
  uint64_t bucket_tokens = 0;  // 0: by the length of the text
  std::string csv, plot;
  bool json = false;
};

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
  Runner(client::Client& client, std::string text, ScoreInput input)
      : client_(client), text_(std::move(text)), input_(std::move(input)) {}

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
  const std::string text_;
  const ScoreInput input_;
};

// Whether the file can be written, before minutes are spent on it.
absl::Status CheckWritable(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  const bool existed = std::filesystem::exists(path);
  const bool opened = std::ofstream(path, std::ios::app).good();
  if (opened && !existed) std::filesystem::remove(path);
  if (opened) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("cannot write the file '", path, "'"));
}

absl::Status CheckFlags(const CompareFlags& flags) {
  for (const std::string& policy : flags.policies) {
    const auto parsed = ParsePolicy(policy);
    if (!parsed.ok()) return parsed.status();
  }
  if (!flags.plot.empty()) {
    const absl::Status named = CheckPlotName(flags.plot);
    if (!named.ok()) return named;
  }
  for (const std::string& path : {flags.csv, flags.plot}) {
    const absl::Status writable = CheckWritable(path);
    if (!writable.ok()) return writable;
  }
  return absl::OkStatus();
}

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
                                     const CompareFlags& flags,
                                     const std::string& text) {
  if (flags.max_input_tokens) {
    return ScoreInput::FirstTokens(client, text, *flags.max_input_tokens);
  }
  // Tokens cannot be more than bytes, but for one in front.
  if (text.size() <= ScoreInput::kMaxTokenizedBytes) {
    return ScoreInput::FirstTokens(client, text, text.size() + 1);
  }
  return ScoreInput::Text(text);
}

std::string TextName(const std::string& path) {
  if (path == "-") return "standard input";
  return std::filesystem::path(path).filename().string();
}

absl::StatusOr<Comparison> RunAll(const CompareFlags& flags,
                                  client::Client& client, std::string text) {
  const auto server = client.GetServerInfo();
  if (!server.ok()) return server.status();
  const auto model = client.GetModelInfo();
  if (!model.ok()) return model.status();
  const std::vector<std::string> policies =
      flags.policies.empty() ? DefaultPolicies(*server, model->model())
                             : flags.policies;
  const absl::Status valid = CheckPolicies(client, policies);
  if (!valid.ok()) return valid;
  auto input = MakeInput(client, flags, text);
  if (!input.ok()) return input.status();

  Comparison comparison;
  comparison.text_name = TextName(flags.file);
  comparison.model = model->model().name();
  comparison.kv_bytes_per_token = model->model().kv_bytes_per_token();
  Runner runner(client, std::move(text), *std::move(input));
  for (size_t i = 0; i < policies.size(); ++i) {
    const std::string name = policies[i].substr(0, policies[i].find(':'));
    auto contender = runner.Run(
        policies[i],
        absl::StrCat(name, " (", i + 1, " of ", policies.size(), ")"));
    if (!contender.ok()) return contender.status();
    comparison.tokens = std::max(comparison.tokens, contender->scored.tokens);
    comparison.contenders.push_back(*std::move(contender));
  }
  comparison.bucket_tokens = flags.bucket_tokens > 0
                                 ? flags.bucket_tokens
                                 : BucketTokens(comparison.tokens);
  return comparison;
}

int Publish(const CompareFlags& flags, const Comparison& comparison) {
  if (flags.json) {
    std::cout << ComparisonJson(comparison) << std::endl;
  } else {
    std::cout << ComparisonTable(comparison) << std::flush;
  }
  if (!flags.csv.empty()) {
    std::ofstream file(flags.csv);
    file << ComparisonCsv(comparison);
    file.close();
    if (!file.good()) {
      return UsageError(
          absl::StrCat("cannot write the file '", flags.csv, "'"));
    }
  }
  if (!flags.plot.empty()) {
    const absl::Status drawn =
        RunGnuplot(GnuplotScript(comparison, flags.plot));
    if (!drawn.ok()) return UsageError(drawn.message());
  }
  return kExitOk;
}

int Compare(const CompareFlags& flags, const Globals& globals) {
  const absl::Status valid = CheckFlags(flags);
  if (!valid.ok()) return UsageError(valid.message());
  auto text = ReadText(flags.file);
  if (!text.ok()) return UsageError(text.status().message());
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  InterruptFlag interrupt;
  const auto comparison = RunAll(flags, **client, *std::move(text));
  if (!comparison.ok()) return Fail(globals, comparison.status());
  if (comparison->tokens < 2) {
    return UsageError("the text has fewer than 2 tokens: nothing to compare");
  }
  return Publish(flags, *comparison);
}

}  // namespace

Command AddCompare(CLI::App& app) {
  auto flags = std::make_shared<CompareFlags>();
  CLI::App* command = app.add_subcommand(
      "compare", "a text under several cache policies, side by side");
  command->add_option("--file", flags->file, "the text; -: standard input")
      ->capture_default_str();
  command
      ->add_option("--policies", flags->policies,
                   "such as sinks:sink_tokens=4,window_tokens=252, may be "
                   "given again; default: full, and window and sinks of equal "
                   "size")
      ->allow_extra_args(false);
  command->add_option("--max_input_tokens", flags->max_input_tokens,
                      "the first N tokens only");
  command
      ->add_option("--bucket_tokens", flags->bucket_tokens,
                   "perplexity of so many tokens at a time; default: at most "
                   "24 buckets")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32));
  command->add_flag("--json", flags->json, "one JSON object");
  command->add_option("--csv", flags->csv,
                      "write a line for each policy and bucket here");
  command->add_option("--plot", flags->plot,
                      "draw it here, FILE.svg or FILE.png; needs gnuplot");
  return {command,
          [flags](const Globals& globals) { return Compare(*flags, globals); }};
}

}  // namespace millrace::cli
