// `millraced healthcheck ADDRESS`: whether a server is alive, for containers
// that have no shell and no other program.
#ifndef MILLRACE_SERVICES_SERVER_HEALTHCHECK_H_
#define MILLRACE_SERVICES_SERVER_HEALTHCHECK_H_

#include <string>

#include "absl/status/status.h"

namespace millrace::server {

// Asks grpc.health.v1 at a plaintext address for `name`, "liveness" as a rule.
// UNAVAILABLE says what came back instead of SERVING. Waits 3 seconds at most.
absl::Status CheckHealth(const std::string& address, const std::string& name);

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_HEALTHCHECK_H_
