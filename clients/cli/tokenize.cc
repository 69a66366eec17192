// millrace tokenize: the token ids of a text.

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/pieces.h"

namespace millrace::cli {
namespace {

struct TokenizeFlags {
  std::string text, file = "-";
  bool text_given = false;
  bool json = false;
};

int Tokenize(const TokenizeFlags& flags, const Globals& globals) {
  const absl::StatusOr<std::string> text =
      flags.text_given ? flags.text : ReadFile(flags.file);
  if (!text.ok()) return UsageError(text.status().message());
  const absl::Status valid = CheckUtf8(*text);
  if (!valid.ok()) return UsageError(valid.message());
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  v1::TokenizeRequest request;
  request.add_inputs()->set_text(*text);
  const auto response = (*client)->Tokenize(request);
  if (!response.ok()) return Fail(globals, response.status());
  const std::vector<uint32_t> ids(response->token_ids().begin(),
                                  response->token_ids().end());
  if (flags.json) {
    std::cout << nlohmann::json{{"token_ids", ids}} << std::endl;
  } else {
    std::cout << absl::StrJoin(ids, " ") << std::endl;
  }
  return kExitOk;
}

}  // namespace

Command AddTokenize(CLI::App& app) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = app.add_subcommand("tokenize", "the token ids of a text");
  auto* text = command->add_option("--text", flags->text, "the text");
  command->add_option("--file", flags->file, "holds the text; -: stdin")
      ->capture_default_str()
      ->excludes(text);
  command->add_flag("--json", flags->json, "a JSON object with token_ids");
  return {command, [flags, text](const Globals& globals) {
            flags->text_given = text->count() > 0;
            return Tokenize(*flags, globals);
          }};
}

}  // namespace millrace::cli
