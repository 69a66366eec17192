// Listeners are the server's gRPC ports: data, health, admin. They are open
// before the model is loaded, so that probes are answered.
#ifndef MILLRACE_SERVICES_SERVER_LISTENERS_H_
#define MILLRACE_SERVICES_SERVER_LISTENERS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/rpc/health.h"
#include "services/rpc/serving.h"
#include "services/server/options.h"

namespace millrace::server {

// Names of grpc.health.v1: "", "liveness", "readiness", and each service.
std::vector<std::string> HealthNames();

// All methods that are served, for metrics: "millrace.v1.Service/Method".
std::vector<std::string> MethodNames();

// "1.51.1".
std::string GrpcVersion();

class Listeners {
 public:
  // `context` and `health` are borrowed and outlive the listeners. The error
  // names the flag and the address, or what is wrong with certificate or key.
  static absl::StatusOr<std::unique_ptr<Listeners>> Start(
      const ServerOptions& options, const rpc::ServiceContext& context,
      rpc::HealthStates* health);
  ~Listeners();

  // 0 for a Unix socket.
  int data_port() const;
  int health_port() const;
  int admin_port() const;

  // Takes no new calls; those that run are cancelled after `patience`.
  void Shutdown(absl::Duration patience);

 private:
  struct Impl;
  explicit Listeners(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_LISTENERS_H_
