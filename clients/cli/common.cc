#include "clients/cli/common.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "clients/cli/pieces.h"
#include "clients/cpp/status.h"

namespace millrace::cli {
namespace {

std::atomic<bool> interrupted{false};

void OnInterrupt(int) { interrupted = true; }

}  // namespace

absl::StatusOr<std::unique_ptr<client::Client>> Connect(
    const Globals& globals) {
  client::ClientOptions options;
  options.address = globals.server;
  if (!globals.token_file.empty()) {
    const auto token = ReadFile(globals.token_file);
    if (!token.ok()) return token.status();
    options.bearer_token = std::string(absl::StripAsciiWhitespace(*token));
  }
  if (!globals.tls_ca.empty()) {
    const auto certificates = ReadFile(globals.tls_ca);
    if (!certificates.ok()) return certificates.status();
    options.root_certificates = *certificates;
  }
  return client::Client::Create(options);
}

int Fail(const Globals& globals, const absl::Status& status) {
  const std::string reason = client::ReasonOf(status);
  if (absl::IsUnavailable(status) && reason.empty()) {
    std::cerr << "millrace: no server answers at " << globals.server
              << "; start one with deploy/quickstart or millraced, or name"
                 " another with --server=HOST:PORT\n";
    return kExitUnreachable;
  }
  if (absl::IsCancelled(status) && InterruptFlag::raised()) {
    return kExitInterrupted;
  }
  std::cerr << "millrace: " << status.message();
  std::cerr << " ("
            << (reason.empty() ? absl::StatusCodeToString(status.code())
                               : reason)
            << ")\n";
  return kExitFailed;
}

int UsageError(absl::string_view message) {
  std::cerr << "millrace: " << message << "\n";
  return kExitUsage;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  if (path == "-") {
    return std::string(std::istreambuf_iterator<char>(std::cin), {});
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (!file || !(content << file.rdbuf())) {
    // An empty file sets failbit on `content`, too.
    if (file && file.peek() == EOF) return std::string();
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read the file '", path, "'"));
  }
  return std::move(content).str();
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  auto text = ReadFile(path);
  if (!text.ok()) return text;
  const absl::Status valid = CheckUtf8(*text);
  if (!valid.ok()) return valid;
  return text;
}

bool ColourWanted() {
  const char* no_color = std::getenv("NO_COLOR");
  return isatty(STDOUT_FILENO) && (no_color == nullptr || *no_color == '\0');
}

bool ProgressWanted() { return isatty(STDERR_FILENO); }

std::string Dim(absl::string_view text) {
  return ColourWanted() ? absl::StrCat("\x1b[2m", text, "\x1b[0m")
                        : std::string(text);
}

std::string FinishReasonName(v1::FinishReason reason) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(v1::FinishReason_Name(reason), "FINISH_REASON_"));
}

std::string WithCommas(uint64_t number) {
  const std::string digits = absl::StrCat(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string Bytes(uint64_t bytes) {
  if (bytes < (1 << 20)) return absl::StrFormat("%.1f KiB", bytes / 1024.0);
  if (bytes < (1 << 30)) {
    return absl::StrFormat("%.1f MiB", bytes / 1048576.0);
  }
  return absl::StrFormat("%.2f GiB", bytes / 1073741824.0);
}

void ShowProgress(absl::string_view line) {
  if (!ProgressWanted()) return;
  std::cerr << "\r\x1b[K" << line << std::flush;
}

InterruptFlag::InterruptFlag() {
  interrupted = false;
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;  // without SA_RESTART: reads end
  sigaction(SIGINT, &action, nullptr);
}

InterruptFlag::~InterruptFlag() { std::signal(SIGINT, SIG_DFL); }

bool InterruptFlag::raised() { return interrupted; }

}  // namespace millrace::cli
