// millrace score: how likely a text is to the model, under a cache policy.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/pieces.h"
#include "clients/cli/policy_text.h"

namespace millrace::cli {
namespace {

constexpr size_t kPieceBytes = 64 << 10;
constexpr size_t kPieceTokens = 16 << 10;

struct ScoreFlags {
  std::string file = "-";
  std::string cache_policy;
  std::optional<uint64_t> max_input_tokens;
  std::string nll_out;
  bool json = false;
};

// Hands out a text piece by piece, or the ids it was cut to.
class Pieces {
 public:
  explicit Pieces(std::string text) : text_(std::move(text)) {}
  explicit Pieces(std::vector<uint32_t> ids) : ids_(std::move(ids)) {}

  std::optional<v1::Input> Next() {
    v1::Input input;
    if (at_ < ids_.size()) {
      const size_t end = std::min(at_ + kPieceTokens, ids_.size());
      for (; at_ < end; ++at_) input.mutable_token_ids()->add_ids(ids_[at_]);
      return input;
    }
    if (at_ >= text_.size()) return std::nullopt;
    const auto piece =
        FirstPiece(absl::string_view(text_).substr(at_), kPieceBytes);
    at_ += piece.size();
    input.set_text(std::string(piece));
    return input;
  }

 private:
  std::string text_;
  std::vector<uint32_t> ids_;
  size_t at_ = 0;
};

// The first `count` tokens of the text. Where a text is cut changes the tokens
// near the cut, so a margin is tokenised with them.
absl::StatusOr<std::vector<uint32_t>> FirstTokens(client::Client& client,
                                                  absl::string_view text,
                                                  uint64_t count) {
  constexpr uint64_t kMarginTokens = 64;
  size_t bytes = std::min<uint64_t>(6 * count + 4096, 3 << 20);
  while (true) {
    v1::TokenizeRequest request;
    const auto piece = FirstPiece(text, bytes);
    request.add_inputs()->set_text(std::string(piece));
    auto response = client.Tokenize(request);
    if (!response.ok()) return response.status();
    const uint64_t got = response->token_ids_size();
    if (got >= count + kMarginTokens || piece.size() == text.size()) {
      const auto& ids = response->token_ids();
      return std::vector<uint32_t>(ids.begin(),
                                   ids.begin() + std::min(got, count));
    }
    if (bytes >= size_t{3} << 20) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--max_input_tokens=", count, " is more than ", got,
          ", which is what fits into one request; leave it out to score the "
          "whole text"));
    }
    bytes = std::min<size_t>(2 * bytes, 3 << 20);
  }
}

absl::StatusOr<Pieces> MakePieces(client::Client& client,
                                  const ScoreFlags& flags, std::string text) {
  if (!flags.max_input_tokens) return Pieces(std::move(text));
  auto ids = FirstTokens(client, text, *flags.max_input_tokens);
  if (!ids.ok()) return ids.status();
  return Pieces(*std::move(ids));
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

void Report(const ScoreFlags& flags, const v1::ScoreFinished& finished,
            double seconds) {
  const uint64_t tokens = finished.tokens();
  const double mean = tokens < 2 ? 0
                                 : -finished.log_likelihood_sum() /
                                       static_cast<double>(tokens - 1);
  const double speed = seconds > 0 ? tokens / seconds : 0;
  const uint64_t peak = finished.usage().peak_resident_tokens();
  if (flags.json) {
    std::cout << nlohmann::json{{"tokens", tokens},
                                {"mean_nll", mean},
                                {"perplexity", std::exp(mean)},
                                {"tokens_per_second", speed},
                                {"peak_resident_tokens", peak},
                                {"cache_policy",
                                 PolicyText(finished.cache_policy())}}
              << std::endl;
    return;
  }
  std::cout << absl::StrFormat(
      "tokens          %s\nmean nll        %.4f nats\nperplexity      %.3f\n"
      "speed           %.0f tokens/s\npeak resident   %s tokens\n"
      "cache policy    %s\n",
      WithCommas(tokens), mean, std::exp(mean), speed, WithCommas(peak),
      PolicyText(finished.cache_policy()));
}

int Score(const ScoreFlags& flags, const Globals& globals) {
  v1::ScoreSetup setup;
  setup.set_per_token(!flags.nll_out.empty());
  if (!flags.cache_policy.empty()) {
    auto policy = ParsePolicy(flags.cache_policy);
    if (!policy.ok()) return UsageError(policy.status().message());
    *setup.mutable_cache_policy() = *std::move(policy);
  }
  auto text = ReadFile(flags.file);
  if (!text.ok()) return UsageError(text.status().message());
  const absl::Status valid = CheckUtf8(*text);
  if (!valid.ok()) return UsageError(valid.message());
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  auto pieces = MakePieces(**client, flags, *std::move(text));
  if (!pieces.ok()) return Fail(globals, pieces.status());

  InterruptFlag interrupt;
  std::vector<float> nll;
  const auto start = std::chrono::steady_clock::now();
  const auto finished = (*client)->Score(
      setup, [&] { return pieces->Next(); },
      [&](const v1::ScoreResponse& event) {
        for (float value : event.chunk().log_likelihoods()) {
          nll.push_back(-value);
        }
        if (event.has_progress()) {
          ShowProgress(absl::StrCat(WithCommas(event.progress().tokens()),
                                    " tokens scored"));
        }
        return !InterruptFlag::raised();
      });
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  ShowProgress("");
  if (!finished.ok()) return Fail(globals, finished.status());
  if (!flags.nll_out.empty()) {
    const absl::Status written = WriteLines(flags.nll_out, nll);
    if (!written.ok()) return UsageError(written.message());
  }
  Report(flags, *finished, seconds.count());
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
  return {command,
          [flags](const Globals& globals) { return Score(*flags, globals); }};
}

}  // namespace millrace::cli
