// `millrace`: talks to a Millrace server from a terminal or a script.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iterator>
#include <string>

#include "clients/cli/commands.h"
#include "clients/cli/common.h"

namespace millrace::cli {
namespace {

constexpr char kFooter[] =
    "\nExit codes: 0 done; 1 the server refused or failed; 2 wrong flags;\n"
    "3 no server there; 130 interrupted.\n"
    "NO_COLOR turns colours off. 'millrace COMMAND --help' tells the rest.";

void AddGlobals(CLI::App& app, Globals& globals) {
  app.add_option("--server", globals.server, "HOST:PORT, or unix:/PATH")
      ->capture_default_str();
  app.add_option("--token_file", globals.token_file,
                 "holds the bearer token that the server wants");
  app.add_option("--tls_ca", globals.tls_ca,
                 "PEM certificates to check the server by; turns TLS on");
}

// What stands where a command should; empty if nothing does.
std::string FirstWord(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (argv[i][0] != '-') return argv[i];
  }
  return "";
}

int Run(int argc, char** argv) {
  CLI::App app("Endless sessions with a language model.", "millrace");
  app.footer(kFooter);
  app.require_subcommand(1);
  Globals globals;
  AddGlobals(app, globals);
  const Command commands[] = {
      AddChat(app),    AddGenerate(app), AddScore(app),
      AddCompare(app), AddTokenize(app), AddBench(app),
      AddInfo(app),    AddSessions(app), AddDemo(app),
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
      return app.exit(error);  // --help
    }
    const std::string word = FirstWord(argc, argv);
    const bool known = std::any_of(
        std::begin(commands), std::end(commands),
        [&](const Command& c) { return c.app->get_name() == word; });
    if (!word.empty() && !known) {
      return UsageError("no such command '" + word +
                        "'; 'millrace --help' lists them");
    }
    app.exit(error);
    return kExitUsage;
  }
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run(globals);
  }
  return kExitUsage;
}

}  // namespace
}  // namespace millrace::cli

int main(int argc, char** argv) {
  // gRPC logs to standard error on its own; errors are ours to tell.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  std::signal(SIGPIPE, SIG_IGN);
  return millrace::cli::Run(argc, argv);
}
