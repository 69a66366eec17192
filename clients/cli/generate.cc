// millrace generate: one prompt, one answer.

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/policy_text.h"
#include "clients/cli/turn_flags.h"
#include "clients/cli/usage_json.h"

namespace millrace::cli {
namespace {

struct GenerateFlags {
  std::string prompt, file, system, cache_policy;
  bool prompt_given = false;
  bool raw = false;
  bool json = false;
  TurnFlags turn;
};

absl::StatusOr<std::string> Prompt(const GenerateFlags& flags) {
  if (flags.prompt_given) return flags.prompt;
  return ReadFile(flags.file);
}

void AddMessage(v1::Role role, const std::string& text,
                v1::GenerateRequest& request) {
  v1::ChatMessage& message = *request.add_inputs()->mutable_message();
  message.set_role(role);
  message.set_text(text);
}

absl::StatusOr<v1::GenerateRequest> MakeRequest(const GenerateFlags& flags) {
  const auto prompt = Prompt(flags);
  if (!prompt.ok()) return prompt.status();
  v1::GenerateRequest request;
  if (flags.raw) {
    request.add_inputs()->set_text(*prompt);
  } else {
    if (!flags.system.empty()) {
      AddMessage(v1::ROLE_SYSTEM, flags.system, request);
    }
    AddMessage(v1::ROLE_USER, *prompt, request);
  }
  if (!flags.cache_policy.empty()) {
    auto policy = ParsePolicy(flags.cache_policy);
    if (!policy.ok()) return policy.status();
    *request.mutable_cache_policy() = *std::move(policy);
  }
  const absl::Status sampling =
      ToSampling(flags.turn, *request.mutable_sampling());
  if (!sampling.ok()) return sampling;
  ToStopping(flags.turn, *request.mutable_stopping());
  return request;
}

int Generate(const GenerateFlags& flags, const Globals& globals) {
  const auto request = MakeRequest(flags);
  if (!request.ok()) return UsageError(request.status().message());
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());

  InterruptFlag interrupt;
  std::string text;
  std::vector<uint32_t> ids;
  const auto finished =
      (*client)->Generate(*request, [&](const v1::GenerateResponse& event) {
        const v1::TokenOutput& output = event.output();
        ids.insert(ids.end(), output.token_ids().begin(),
                   output.token_ids().end());
        if (flags.json) {
          text += output.text();
        } else {
          std::cout << output.text() << std::flush;
        }
        return !InterruptFlag::raised();
      });
  if (!flags.json) std::cout << std::endl;
  if (!finished.ok()) return Fail(globals, finished.status());
  if (flags.json) {
    std::cout << nlohmann::json{{"text", text},
                                {"token_ids", ids},
                                {"finish_reason",
                                 FinishReasonName(finished->reason())},
                                {"usage", UsageJson(finished->usage())},
                                {"timing", TimingJson(finished->usage())}}
              << std::endl;
  }
  return kExitOk;
}

}  // namespace

Command AddGenerate(CLI::App& app) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand(
      "generate", "answer one prompt, given by flag, file or standard input");
  auto* prompt = command->add_option("--prompt", flags->prompt, "the prompt");
  flags->file = "-";
  command->add_option("--file", flags->file, "holds the prompt; -: stdin")
      ->capture_default_str()
      ->excludes(prompt);
  command->add_option("--system", flags->system, "a system prompt");
  command->add_flag("--raw", flags->raw, "no chat template around the prompt");
  command->add_option("--cache_policy", flags->cache_policy,
                      "such as sinks:sink_tokens=4,window_tokens=1020; "
                      "'millrace info' lists them");
  command->add_flag("--json", flags->json, "one JSON object at the end");
  AddTurnFlags(*command, flags->turn);
  return {command, [flags, prompt](const Globals& globals) {
            flags->prompt_given = prompt->count() > 0;
            return Generate(*flags, globals);
          }};
}

}  // namespace millrace::cli
