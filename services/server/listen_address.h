// Addresses to listen on. They are literal: no resolver decides whether an
// address stays on the machine.
//
//   ParseListenAddress("127.0.0.1:9000")   // loopback
//   ParseListenAddress("[::1]:0")          // loopback, a port of its choice
//   ParseListenAddress("unix:/run/m.sock") // loopback
//   ParseListenAddress("localhost:9000")   // INVALID_ARGUMENT
#ifndef MILLRACE_SERVICES_SERVER_LISTEN_ADDRESS_H_
#define MILLRACE_SERVICES_SERVER_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace millrace::server {

struct ListenAddress {
  std::string host;  // without brackets; empty for a Unix socket
  int port = 0;      // 0: the system chooses
  bool is_unix = false;
  // 127.0.0.0/8, ::1 and Unix sockets. 0.0.0.0 and :: are not.
  bool is_loopback = false;
};

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text);

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_LISTEN_ADDRESS_H_
