// What all commands share: the connection, exit codes, and how they report.
#ifndef MILLRACE_CLIENTS_CLI_COMMON_H_
#define MILLRACE_CLIENTS_CLI_COMMON_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "clients/cpp/client.h"

namespace millrace::cli {

// `millrace --help` lists these.
enum ExitCode {
  kExitOk = 0,
  kExitFailed = 1,       // the server refused or failed the request
  kExitUsage = 2,        // wrong flags, unreadable files
  kExitUnreachable = 3,  // no server there
  kExitInterrupted = 130,
};

// Flags before the command.
struct Globals {
  std::string server = "127.0.0.1:9000";
  std::string token_file;
  std::string tls_ca;
};

// INVALID_ARGUMENT if a file cannot be read.
absl::StatusOr<std::unique_ptr<client::Client>> Connect(const Globals& globals);

// Prints one line on standard error and returns the exit code.
int Fail(const Globals& globals, const absl::Status& status);
int UsageError(absl::string_view message);

// The whole of a file, or of standard input for "-".
absl::StatusOr<std::string> ReadFile(const std::string& path);
// The same; INVALID_ARGUMENT if it is not valid UTF-8.
absl::StatusOr<std::string> ReadText(const std::string& path);

// Whether colours and progress are wanted on standard output / error.
bool ColourWanted();
bool ProgressWanted();

// Dim text where colours are wanted.
std::string Dim(absl::string_view text);

// "END_OF_TURN" of FINISH_REASON_END_OF_TURN, in lower case.
std::string FinishReasonName(v1::FinishReason reason);

// 1234567 -> "1,234,567"; 4718592 -> "4.5 MiB".
std::string WithCommas(uint64_t number);
std::string Bytes(uint64_t bytes);

// Replaces the progress line on standard error; an empty one clears it.
void ShowProgress(absl::string_view line);

// Ctrl-C sets a flag instead of ending the process, until the object goes.
class InterruptFlag {
 public:
  InterruptFlag();
  ~InterruptFlag();
  static bool raised();
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_COMMON_H_
