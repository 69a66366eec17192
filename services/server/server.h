// Server is the composition root: it puts everything together, and takes it
// apart in order.
//
//   return RunServer(options);   // listens, loads, serves, drains
//
// What happens when:
//
//   start      listeners open; health says NOT_SERVING but for liveness; calls
//              fail with MODEL_LOADING
//   loaded     readiness on; the ready line on standard output
//   SIGTERM    readiness off at once; new work is taken until drain_delay
//   + delay    no new sessions, turns and requests; go_away on every stream
//   + timeout  what is left is cut: closed DRAINED, streams end UNAVAILABLE
//              (DRAINING); exit 0, earlier if nothing is open
//   2nd signal straight to the cut
#ifndef MILLRACE_SERVICES_SERVER_SERVER_H_
#define MILLRACE_SERVICES_SERVER_SERVER_H_

#include "absl/status/status.h"
#include "services/server/options.h"

namespace millrace::server {

// Serves until SIGTERM or SIGINT, both held (signals.h). The error is one line
// for people: why it could not start.
absl::Status RunServer(const ServerOptions& options);

// Checks what a start needs without serving: the token file, the model file and
// its tokenizer.
absl::Status CheckConfig(const ServerOptions& options);

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_SERVER_H_
