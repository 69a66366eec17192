// millrace info: what the server is, and the model in it.

#include <google/protobuf/util/json_util.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/policy_text.h"

namespace millrace::cli {
namespace {

nlohmann::json ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(message, &text, options);
  return nlohmann::json::parse(text);
}

void Line(absl::string_view name, const std::string& value) {
  std::cout << absl::StrFormat("%-16s %s\n", name, value);
}

void PrintModel(const v1::ModelInfo& model) {
  Line("model", model.name());
  Line("architecture",
       absl::StrFormat("%s, %d layers, %d heads (%d KV) of %d, embedding %d",
                       model.architecture(), model.layers(), model.heads(),
                       model.kv_heads(), model.head_dim(),
                       model.embedding_length()));
  Line("parameters", WithCommas(model.parameters()));
  Line("trained context",
       WithCommas(model.trained_context_tokens()) + " tokens");
  std::string types;
  for (const v1::WeightType& type : model.weight_types()) {
    absl::StrAppend(&types, types.empty() ? "" : ", ", type.name(), " ",
                    Bytes(type.bytes()));
  }
  Line("weights", types);
  Line("K/V", absl::StrCat(model.kv_dtype(), ", ",
                           Bytes(model.kv_bytes_per_token()), " a token"));
  Line("vocabulary", WithCommas(model.vocabulary_size()));
  if (model.tokenizer().has_sink_token_id()) {
    Line("sink token", absl::StrCat(model.tokenizer().sink_token_id(),
                                    ", in front of every text"));
  }
  Line("chat template",
       model.chat_template().usable()
           ? "usable"
           : "not usable: " + model.chat_template().explanation());
  Line("sha256", model.sha256());
}

void PrintServer(const v1::GetServerInfoResponse& server) {
  Line("server", absl::StrCat("millraced ", server.version()));
  for (const v1::BackendInfo& backend : server.backends()) {
    Line("backend",
         absl::StrCat(backend.name(), backend.in_use() ? ", in use: " : "",
                      backend.device()));
  }
  Line("K/V memory", Bytes(server.limits().kv_memory_bytes()));
  Line("sessions", absl::StrCat("at most ", server.limits().max_sessions()));
  Line("default policy", PolicyText(server.default_session_policy()));
}

void PrintPolicies(const v1::GetServerInfoResponse& server) {
  std::cout << "\ncache policies\n";
  for (const v1::PolicyInfo& policy : server.policies()) {
    std::cout << "  " << policy.name() << ": " << policy.description() << "\n";
    for (const v1::PolicyOption& option : policy.options()) {
      std::cout << absl::StrFormat("    %-30s %s\n", option.name(),
                                   option.description());
    }
  }
}

int Info(bool json, const Globals& globals) {
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  const auto server = (*client)->GetServerInfo();
  if (!server.ok()) return Fail(globals, server.status());
  const auto model = (*client)->GetModelInfo();
  if (!model.ok()) return Fail(globals, model.status());
  if (json) {
    std::cout << nlohmann::json{{"server", ToJson(*server)},
                                {"model", ToJson(model->model())}}
              << std::endl;
    return kExitOk;
  }
  PrintServer(*server);
  PrintModel(model->model());
  PrintPolicies(*server);
  return kExitOk;
}

}  // namespace

Command AddInfo(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command =
      app.add_subcommand("info", "the server, its model and cache policies");
  command->add_flag("--json", *json, "one JSON object");
  return {command,
          [json](const Globals& globals) { return Info(*json, globals); }};
}

}  // namespace millrace::cli
