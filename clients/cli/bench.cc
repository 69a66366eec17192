// millrace bench: how fast a server reads and writes.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/blocking_counter.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"

namespace millrace::cli {
namespace {

struct BenchFlags {
  int prompt_tokens = 512;
  int max_tokens = 128;
  int concurrency = 1;
  int rounds = 5;
  bool json = false;
};

// Figures of one round, by the clock of the client.
struct Round {
  double prefill = 0;      // tokens/s: prompts over time to last first token
  double decode = 0;       // tokens/s: all requests, while all of them write
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
  // Every token takes a step, whatever the model makes of such a prompt.
  request.mutable_sampling()->set_speculation(v1::SPECULATION_NONE);
  request.mutable_stopping()->set_max_tokens(flags.max_tokens);
  request.mutable_stopping()->set_ignore_end_of_turn(true);
  request.mutable_stopping()->set_repetition_guard(0);
  return request;
}

// When tokens of one request came, in seconds since the round began; several
// of one message came at once.
using Arrivals = std::vector<double>;

absl::StatusOr<std::vector<Arrivals>> RunRequests(client::Client& client,
                                                  const BenchFlags& flags) {
  const int n = flags.concurrency;
  std::vector<absl::Status> ended(n);
  std::vector<Arrivals> arrivals(n);
  absl::BlockingCounter running(n);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < n; ++i) {
    const auto on_event = [&, i](const v1::GenerateResponse& event) {
      const std::chrono::duration<double> now =
          std::chrono::steady_clock::now() - start;
      arrivals[i].insert(arrivals[i].end(), event.output().token_ids_size(),
                         now.count());
      return !InterruptFlag::raised();
    };
    client.StartGenerate(MakeRequest(flags, i), on_event,
                         [&, i](auto finished) {
                           ended[i] = finished.status();
                           running.DecrementCount();
                         });
  }
  running.Wait();
  for (const absl::Status& status : ended) {
    if (!status.ok()) return status;
  }
  return arrivals;
}

absl::StatusOr<Round> RunRound(client::Client& client,
                               const BenchFlags& flags) {
  const auto arrivals = RunRequests(client, flags);
  if (!arrivals.ok()) return arrivals.status();
  std::vector<double> first_tokens;
  double begin = 0, end = std::numeric_limits<double>::infinity();
  for (const Arrivals& of_one : *arrivals) {
    first_tokens.push_back(of_one.front());
    begin = std::max(begin, of_one.front());
    end = std::min(end, of_one.back());
  }
  if (end <= begin) {
    return absl::FailedPreconditionError(
        "the first request was done before the last began to write; ask for "
        "more --max_tokens");
  }
  double tokens = 0;
  for (const Arrivals& of_one : *arrivals) {
    tokens += std::count_if(of_one.begin(), of_one.end(),
                            [&](double t) { return t > begin && t <= end; });
  }
  return Round{.prefill = flags.concurrency * flags.prompt_tokens / begin,
               .decode = tokens / (end - begin),
               .first_token = Median(first_tokens)};
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
