#include "services/server/signals.h"

#include <csignal>

namespace millrace::server {
namespace {

sigset_t Held() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void HoldSignals() {
  const sigset_t set = Held();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

bool WaitForSignal(absl::Duration timeout) {
  const sigset_t set = Held();
  const timespec wait = absl::ToTimespec(timeout);
  return sigtimedwait(&set, nullptr, &wait) > 0;
}

}  // namespace millrace::server
