// Services on a port of their own, before any model is loaded.
#ifndef MILLRACE_TESTS_SERVICES_RPC_SERVICE_HARNESS_H_
#define MILLRACE_TESTS_SERVICES_RPC_SERVICE_HARNESS_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>

#include <memory>
#include <string>
#include <vector>

#include "services/metrics/metrics.h"
#include "services/rpc/serving.h"

namespace millrace::rpc {

class ServiceHarness {
 public:
  ServiceHarness() {
    context.gate = &gate;
    context.io = &io;
    context.metrics = &metrics;
    context.recorder = &recorder;
    context.log = &log;
  }
  ~ServiceHarness() {
    if (server) server->Shutdown(std::chrono::system_clock::now());
    server.reset();
    io.Stop();
  }

  std::shared_ptr<grpc::Channel> Serve(std::unique_ptr<grpc::Service> s) {
    service = std::move(s);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(service.get());
    server = builder.BuildAndStart();
    return grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                               grpc::InsecureChannelCredentials());
  }

  ServingGate gate;
  IoThread io;
  metrics::Metrics metrics{{}};
  metrics::EventRecorder recorder{&metrics};
  std::string logged;
  metrics::JsonLog log{metrics::Level::kInfo, [this](absl::string_view line) {
                         logged.append(line.data(), line.size());
                       }};
  ServiceContext context;
  std::unique_ptr<grpc::Service> service;
  std::unique_ptr<grpc::Server> server;
};

}  // namespace millrace::rpc

#endif  // MILLRACE_TESTS_SERVICES_RPC_SERVICE_HARNESS_H_
