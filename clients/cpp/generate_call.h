// GenerateCall reads the events of one Generate call on a thread of gRPC's.
#ifndef MILLRACE_CLIENTS_CPP_GENERATE_CALL_H_
#define MILLRACE_CLIENTS_CPP_GENERATE_CALL_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "millrace/v1/inference.grpc.pb.h"

namespace millrace::client {

// Owns itself, until it has called `on_end`.
class GenerateCall final
    : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  // False cancels the call.
  using EventHandler = std::function<bool(const v1::GenerateResponse&)>;
  using EndHandler = std::function<void(absl::StatusOr<v1::GenerateFinished>)>;

  static void Start(v1::InferenceService::Stub& stub,
                    std::unique_ptr<grpc::ClientContext> context,
                    const v1::GenerateRequest& request, EventHandler on_event,
                    EndHandler on_end);

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  GenerateCall(std::unique_ptr<grpc::ClientContext> context,
               const v1::GenerateRequest& request, EventHandler on_event,
               EndHandler on_end);

  const std::unique_ptr<grpc::ClientContext> context_;
  const v1::GenerateRequest request_;
  const EventHandler on_event_;
  const EndHandler on_end_;
  v1::GenerateResponse event_;
  v1::GenerateFinished finished_;
};

}  // namespace millrace::client

#endif  // MILLRACE_CLIENTS_CPP_GENERATE_CALL_H_
