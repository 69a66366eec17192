// The commands of `millrace`, one file each. AddX declares a command and its
// flags; the returned function runs it and returns the exit code.
#ifndef MILLRACE_CLIENTS_CLI_COMMANDS_H_
#define MILLRACE_CLIENTS_CLI_COMMANDS_H_

#include <functional>

#include "clients/cli/common.h"

namespace CLI {
class App;
}

namespace millrace::cli {

struct Command {
  CLI::App* app = nullptr;
  std::function<int(const Globals&)> run;
};

Command AddChat(CLI::App& app);
Command AddGenerate(CLI::App& app);
Command AddScore(CLI::App& app);
Command AddCompare(CLI::App& app);
Command AddTokenize(CLI::App& app);
Command AddBench(CLI::App& app);
Command AddInfo(CLI::App& app);
Command AddSessions(CLI::App& app);
Command AddDemo(CLI::App& app);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_COMMANDS_H_
