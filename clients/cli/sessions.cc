// millrace sessions: lists and ends the sessions of a server.

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "clients/cli/commands.h"
#include "clients/cli/common.h"
#include "clients/cli/policy_text.h"
#include "clients/cli/usage_json.h"

namespace millrace::cli {
namespace {

struct SessionsFlags {
  std::string admin = "127.0.0.1:9001";
  std::string remove;
  bool json = false;
};

std::string StateName(v1::SessionState state) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(v1::SessionState_Name(state), "SESSION_STATE_"));
}

nlohmann::json SessionJson(const v1::SessionInfo& session) {
  return {{"session_id", session.session_id()},
          {"state", StateName(session.state())},
          {"client_tag", session.client_tag()},
          {"cache_policy", PolicyText(session.cache_policy())},
          {"usage", UsageJson(session.usage())},
          {"reserved_bytes", session.reserved_bytes()},
          {"pending_input_bytes", session.pending_input_bytes()},
          {"unread_bytes", session.unread_bytes()}};
}

void PrintRow(const v1::SessionInfo& session) {
  std::cout << absl::StrFormat(
      "%-32s  %-8s  %12s  %8s  %10s  %s\n", session.session_id(),
      StateName(session.state()), WithCommas(session.usage().text_position()),
      WithCommas(session.usage().visible_tokens()),
      Bytes(session.reserved_bytes()), session.client_tag());
}

int List(const SessionsFlags& flags, const Globals& globals,
         client::Client& client) {
  nlohmann::json all = nlohmann::json::array();
  if (!flags.json) {
    std::cout << absl::StrFormat("%-32s  %-8s  %12s  %8s  %10s  %s\n",
                                 "session", "state", "position", "visible",
                                 "reserved", "tag");
  }
  v1::ListSessionsRequest request;
  do {
    const auto page = client.ListSessions(request);
    if (!page.ok()) return Fail(globals, page.status());
    for (const v1::SessionInfo& session : page->sessions()) {
      if (flags.json) {
        all.push_back(SessionJson(session));
      } else {
        PrintRow(session);
      }
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  if (flags.json) std::cout << nlohmann::json{{"sessions", all}} << std::endl;
  return kExitOk;
}

int Sessions(const SessionsFlags& flags, Globals globals) {
  globals.server = flags.admin;
  const auto client = Connect(globals);
  if (!client.ok()) return UsageError(client.status().message());
  if (flags.remove.empty()) return List(flags, globals, **client);
  const absl::Status removed = (*client)->DeleteSession(flags.remove);
  if (!removed.ok()) return Fail(globals, removed);
  return kExitOk;
}

}  // namespace

Command AddSessions(CLI::App& app) {
  auto flags = std::make_shared<SessionsFlags>();
  CLI::App* command = app.add_subcommand(
      "sessions", "list the server's sessions, or end one (operators)");
  command->add_option("--admin", flags->admin, "the server's admin listener")
      ->capture_default_str();
  command->add_option("--delete", flags->remove, "end the session of this id");
  command->add_flag("--json", flags->json, "one JSON object");
  return {command, [flags](const Globals& globals) {
            return Sessions(*flags, globals);
          }};
}

}  // namespace millrace::cli
