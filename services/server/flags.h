// The flags of millraced: the only configuration there is.
#ifndef MILLRACE_SERVICES_SERVER_FLAGS_H_
#define MILLRACE_SERVICES_SERVER_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/server/options.h"

namespace millrace::server {

inline constexpr char kVersion[] = "0.1.0";

// Sets what --help and --version print. Before ParseCommandLine.
void SetUpFlags();

// What the command line asks for, checked by Validate.
absl::StatusOr<ServerOptions> OptionsFromFlags();

// Whether only the configuration is wanted, and no server.
bool CheckConfigOnly();
bool PrintConfigOnly();

// All flags as a flag file, one a line.
std::string FlagFile();
// Those that differ from their defaults, for the first log line. Paths of
// secrets, not secrets.
std::vector<std::pair<std::string, std::string>> ChangedFlags();

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_FLAGS_H_
