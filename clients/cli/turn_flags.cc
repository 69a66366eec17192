#include "clients/cli/turn_flags.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace millrace::cli {

void AddTurnFlags(CLI::App& command, TurnFlags& flags) {
  const std::string sampling = "Sampling";
  command
      .add_option("--temperature", flags.temperature,
                  "0: always the likeliest token")
      ->group(sampling);
  command.add_option("--top_k", flags.top_k, "only the k likeliest; 0: all")
      ->group(sampling);
  command
      .add_option("--top_p", flags.top_p,
                  "only the likeliest of this probability together; 1: all")
      ->group(sampling);
  command
      .add_option("--min_p", flags.min_p,
                  "only those of this share of the likeliest's probability")
      ->group(sampling);
  command
      .add_option("--repetition_penalty", flags.repetition_penalty,
                  "divides logits of recent tokens; 1: off")
      ->group(sampling);
  command
      .add_option("--presence_penalty", flags.presence_penalty,
                  "taken from logits of recent tokens; 0: off")
      ->group(sampling);
  command
      .add_option("--frequency_penalty", flags.frequency_penalty,
                  "the same, for each time a token came; 0: off")
      ->group(sampling);
  command
      .add_option("--penalty_window_tokens", flags.penalty_window_tokens,
                  "what counts as recent")
      ->group(sampling);
  command.add_option("--seed", flags.seed, "same seed, same tokens")
      ->group(sampling);
  command
      .add_option("--logit_bias", flags.logit_bias,
                  "ID=BIAS, may be given again")
      ->allow_extra_args(false)
      ->group(sampling);

  command
      .add_option("--speculation", flags.speculation,
                  "ngram or none: whether tokens are guessed; changes none")
      ->group(sampling);

  const std::string stopping = "Stopping";
  command.add_option("--max_tokens", flags.max_tokens, "tokens at most")
      ->group(stopping);
  command.add_flag("--unlimited", flags.unlimited, "no limit of tokens")
      ->group(stopping);
  command
      .add_option("--min_tokens", flags.min_tokens,
                  "no end of turn before so many")
      ->group(stopping);
  command
      .add_option("--stop", flags.stop_strings,
                  "ends at this text, may be given again")
      ->allow_extra_args(false)
      ->group(stopping);
  command
      .add_option("--stop_token_id", flags.stop_token_ids,
                  "ends at this token, may be given again")
      ->allow_extra_args(false)
      ->group(stopping);
  command
      .add_flag("--ignore_end_of_turn", flags.ignore_end_of_turn,
                "the model cannot end by itself")
      ->group(stopping);
  command.add_option("--time_limit", flags.time_limit, "seconds at most")
      ->group(stopping);
  command
      .add_option("--repetition_guard", flags.repetition_guard,
                  "ends when so many tokens are one cycle; 0: off")
      ->group(stopping);
}

absl::Status ToSampling(const TurnFlags& flags, v1::SamplingParams& sampling) {
  if (flags.temperature) sampling.set_temperature(*flags.temperature);
  if (flags.top_k) sampling.set_top_k(*flags.top_k);
  if (flags.top_p) sampling.set_top_p(*flags.top_p);
  if (flags.min_p) sampling.set_min_p(*flags.min_p);
  if (flags.repetition_penalty) {
    sampling.set_repetition_penalty(*flags.repetition_penalty);
  }
  if (flags.presence_penalty) {
    sampling.set_presence_penalty(*flags.presence_penalty);
  }
  if (flags.frequency_penalty) {
    sampling.set_frequency_penalty(*flags.frequency_penalty);
  }
  if (flags.penalty_window_tokens) {
    sampling.set_penalty_window_tokens(*flags.penalty_window_tokens);
  }
  if (flags.seed) sampling.set_seed(*flags.seed);
  if (flags.speculation == "ngram") {
    sampling.set_speculation(v1::SPECULATION_NGRAM);
  } else if (flags.speculation == "none") {
    sampling.set_speculation(v1::SPECULATION_NONE);
  } else if (!flags.speculation.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--speculation=", flags.speculation, ": must be ngram or none"));
  }
  for (const std::string& entry : flags.logit_bias) {
    const std::pair<std::string, std::string> pair =
        absl::StrSplit(entry, absl::MaxSplits('=', 1));
    uint32_t id = 0;
    float bias = 0;
    if (!absl::SimpleAtoi(pair.first, &id) ||
        !absl::SimpleAtof(pair.second, &bias)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--logit_bias=", entry, ": not ID=BIAS"));
    }
    v1::LogitBias& added = *sampling.add_logit_bias();
    added.set_token_id(id);
    added.set_bias(bias);
  }
  return absl::OkStatus();
}

void ToStopping(const TurnFlags& flags, v1::StoppingOptions& stopping) {
  if (flags.unlimited) stopping.mutable_unlimited();
  if (flags.max_tokens) stopping.set_max_tokens(*flags.max_tokens);
  if (flags.min_tokens) stopping.set_min_tokens(*flags.min_tokens);
  for (const std::string& text : flags.stop_strings) {
    stopping.add_stop_strings(text);
  }
  for (uint32_t id : flags.stop_token_ids) stopping.add_stop_token_ids(id);
  if (flags.ignore_end_of_turn) stopping.set_ignore_end_of_turn(true);
  if (flags.time_limit) {
    const double whole = std::floor(*flags.time_limit);
    stopping.mutable_time_limit()->set_seconds(static_cast<int64_t>(whole));
    stopping.mutable_time_limit()->set_nanos(
        static_cast<int32_t>((*flags.time_limit - whole) * 1e9));
  }
  if (flags.repetition_guard) {
    stopping.set_repetition_guard(*flags.repetition_guard);
  }
}

}  // namespace millrace::cli
