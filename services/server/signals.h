// SIGTERM and SIGINT as something to wait for.
#ifndef MILLRACE_SERVICES_SERVER_SIGNALS_H_
#define MILLRACE_SERVICES_SERVER_SIGNALS_H_

#include "absl/time/time.h"

namespace millrace::server {

// Holds both back in this thread and in those that it starts from now on: call
// it first. Also ignores SIGPIPE, which a client that goes away would send.
void HoldSignals();

// Whether one has come, or comes within `timeout`.
bool WaitForSignal(absl::Duration timeout);

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_SIGNALS_H_
