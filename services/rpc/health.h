// The standard gRPC health service: Check and Watch.
//
//   HealthStates states({"", "liveness", "readiness", ...});
//   auto service = NewHealthService(&states, shared);
//   states.Set("readiness", false);   // everyone who watches hears it
//
// Names are set one by one: gRPC's own health service can only turn all of them
// off, and liveness must stay on while the server drains.
#ifndef MILLRACE_SERVICES_RPC_HEALTH_H_
#define MILLRACE_SERVICES_RPC_HEALTH_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "services/rpc/io_thread.h"

namespace grpc {
class Service;
}

namespace millrace::rpc {

// Which services take requests. Thread-safe.
class HealthStates {
 public:
  // None of them does at first.
  explicit HealthStates(const std::vector<std::string>& names);

  // REQUIRES: `name` is one of those given.
  void Set(absl::string_view name, bool serving);
  // nullopt: no such name.
  std::optional<bool> Get(absl::string_view name) const;

  // Tells `changed` of every Set that changes something, on the thread that
  // sets, until it returns false.
  void Watch(std::function<bool()> changed);

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, bool, std::less<>> states_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::function<bool()>> watchers_ ABSL_GUARDED_BY(mutex_);
};

// Everything is borrowed and outlives the service. One service per listener;
// never asks for credentials.
std::unique_ptr<grpc::Service> NewHealthService(HealthStates* states,
                                                IoThread* io);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_HEALTH_H_
