// millrace bench: how fast a server reads and writes.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/usage_json.h"

namespace millrace::cli {
namespace {

struct BenchFlags {
  int prompt_tokens = 512;
  int max_tokens = 128;
  int concurrency = 1;
  int rounds = 5;
  bool json = false;
};

// Figures of one round, over all requests that ran at once.
struct Round {
  double prefill = 0;      // tokens/s: prompt over time to first token
  double decode = 0;       // tokens/s: all requests together
  double first_token = 0;  // seconds, median
};

double Median(std::vector<double> values) {
  const auto middle = values.begin() + values.size() / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// A prompt of arbitrary ordinary tokens; each request gets its own.
v1::GenerateRequest MakeRequest(const BenchFlags& flags, int number) {
  constexpr uint32_t kFirstId = 1000, kIds = 20000;
  v1::GenerateRequest request;
  auto& ids = *request.add_inputs()->mutable_token_ids();
  for (int i = 0; i < flags.prompt_tokens; ++i) {
    ids.add_ids(kFirstId + (i * 7919u + number * 104729u) % kIds);
  }
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(flags.max_tokens);
  request.mutable_stopping()->set_ignore_end_of_turn(true);
  request.mutable_stopping()->set_repetition_guard(0);
  return request;
}

absl::StatusOr<Round> RunRound(client::Client& client,
                               const BenchFlags& flags) {
  const int n = flags.concurrency;
  std::vector<absl::StatusOr<v1::GenerateFinished>> finished(
      n, absl::UnknownError("not run"));
  std::vector<std::thread> threads;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < n; ++i) {
    threads.emplace_back([&, i] {
      finished[i] = client.Generate(MakeRequest(flags, i), [](const auto&) {
        return !InterruptFlag::raised();
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> wall =
      std::chrono::steady_clock::now() - start;

  std::vector<double> first_tokens;
  double decode_seconds = 0, tokens = 0;
  for (const auto& result : finished) {
    if (!result.ok()) return result.status();
    first_tokens.push_back(Seconds(result->usage().time_to_first_token()));
    decode_seconds =
        std::max(decode_seconds, Seconds(result->usage().decode()));
    tokens += static_cast<double>(result->usage().generated_tokens()) - 1;
  }
  Round round;
  round.first_token = Median(first_tokens);
  round.prefill = n * flags.prompt_tokens /
                  *std::max_element(first_tokens.begin(), first_tokens.end());
  round.decode = tokens / (decode_seconds > 0 ? decode_seconds : wall.count());
  return round;
}

int Bench(const BenchFlags& flags, const Globals& globals) {
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  InterruptFlag interrupt;
  std::vector<double> prefill, decode, first_token;
  for (int i = 0; i < flags.rounds; ++i) {
    ShowProgress(absl::StrCat("round ", i + 1, " of ", flags.rounds));
    const auto round = RunRound(**client, flags);
    ShowProgress("");
    if (!round.ok()) return Fail(globals, round.status());
    prefill.push_back(round->prefill);
    decode.push_back(round->decode);
    first_token.push_back(round->first_token);
  }
  if (flags.json) {
    std::cout << nlohmann::json{{"concurrency", flags.concurrency},
                                {"prompt_tokens", flags.prompt_tokens},
                                {"max_tokens", flags.max_tokens},
                                {"rounds", flags.rounds},
                                {"prefill_tokens_per_second", Median(prefill)},
                                {"decode_tokens_per_second", Median(decode)},
                                {"time_to_first_token_seconds",
                                 Median(first_token)}}
              << std::endl;
    return kExitOk;
  }
  std::cout << absl::StrFormat(
      "%d at once, %d tokens in, %d out; medians of %d rounds\n"
      "read                 %.0f tokens/s\n"
      "write                %.1f tokens/s\n"
      "time to first token  %.3f s\n",
      flags.concurrency, flags.prompt_tokens, flags.max_tokens, flags.rounds,
      Median(prefill), Median(decode), Median(first_token));
  return kExitOk;
}

}  // namespace

Command AddBench(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command =
      app.add_subcommand("bench", "measure how fast the server is");
  const auto positive = CLI::Range(1, 1 << 20);
  command->add_option("--prompt_tokens", flags->prompt_tokens)
      ->check(positive)
      ->capture_default_str();
  command->add_option("--max_tokens", flags->max_tokens, "at least 2")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--concurrency", flags->concurrency, "requests at once")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--rounds", flags->rounds)
      ->check(positive)
      ->capture_default_str();
  command->add_flag("--json", flags->json, "one JSON object");
  return {command,
          [flags](const Globals& globals) { return Bench(*flags, globals); }};
}

}  // namespace millrace::cli
