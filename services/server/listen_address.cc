#include "services/server/listen_address.h"

#include <arpa/inet.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace millrace::server {
namespace {

absl::Status NotAnAddress() {
  return absl::InvalidArgumentError(
      "must be a literal address with a port, such as 127.0.0.1:9000 or "
      "[::1]:9000, or unix:PATH");
}

}  // namespace

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text) {
  ListenAddress out;
  if (absl::StartsWith(text, "unix:")) {
    if (text.size() == 5) return NotAnAddress();
    out.is_unix = out.is_loopback = true;
    return out;
  }
  const size_t colon = text.rfind(':');
  if (colon == text.npos) return NotAnAddress();
  absl::string_view host = text.substr(0, colon);
  const absl::string_view port = text.substr(colon + 1);
  if (!absl::SimpleAtoi(port, &out.port) || out.port < 0 || out.port > 65535) {
    return NotAnAddress();
  }
  const bool v6 =
      absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  out.host = std::string(host);
  if (v6) {
    in6_addr address;
    if (inet_pton(AF_INET6, out.host.c_str(), &address) != 1) {
      return NotAnAddress();
    }
    out.is_loopback = IN6_IS_ADDR_LOOPBACK(&address);
    return out;
  }
  in_addr address;
  if (inet_pton(AF_INET, out.host.c_str(), &address) != 1) {
    return NotAnAddress();
  }
  out.is_loopback = (ntohl(address.s_addr) >> 24) == 127;
  return out;
}

}  // namespace millrace::server
