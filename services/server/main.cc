// millraced: serves one language model over gRPC.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "services/server/flags.h"
#include "services/server/healthcheck.h"
#include "services/server/server.h"
#include "services/server/signals.h"

namespace {

// One clear line on standard error.
int Fail(const absl::Status& status) {
  std::fprintf(stderr, "millraced: %s\n",
               std::string(status.message()).c_str());
  return EXIT_FAILURE;
}

int HealthCheck(const std::vector<char*>& arguments) {
  if (arguments.size() > 4 || arguments.size() < 3) {
    return Fail(absl::InvalidArgumentError(
        "usage: millraced healthcheck HOST:PORT [NAME]"));
  }
  const absl::Status status = millrace::server::CheckHealth(
      arguments[2], arguments.size() == 4 ? arguments[3] : "liveness");
  return status.ok() ? EXIT_SUCCESS : Fail(status);
}

}  // namespace

int main(int argc, char** argv) {
  // The distribution's Abseil looks for lock cycles at every lock and ends the
  // process at a possible one: right for tests, not for a server.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  millrace::server::SetUpFlags();
  const std::vector<char*> arguments = absl::ParseCommandLine(argc, argv);
  if (arguments.size() > 1 && std::string(arguments[1]) == "healthcheck") {
    return HealthCheck(arguments);
  }
  if (arguments.size() > 1) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("'", arguments[1], "' is no flag; see --help")));
  }
  if (millrace::server::PrintConfigOnly()) {
    std::fputs(millrace::server::FlagFile().c_str(), stdout);
    return EXIT_SUCCESS;
  }
  const auto options = millrace::server::OptionsFromFlags();
  if (!options.ok()) return Fail(options.status());
  if (millrace::server::CheckConfigOnly()) {
    const absl::Status status = millrace::server::CheckConfig(*options);
    if (!status.ok()) return Fail(status);
    std::puts("ok");
    return EXIT_SUCCESS;
  }
  millrace::server::HoldSignals();
  const absl::Status status = millrace::server::RunServer(*options);
  return status.ok() ? EXIT_SUCCESS : Fail(status);
}
