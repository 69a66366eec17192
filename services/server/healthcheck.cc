#include "services/server/healthcheck.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace millrace::server {

namespace proto = ::grpc::health::v1;

absl::Status CheckHealth(const std::string& address, const std::string& name) {
  const auto stub = proto::Health::NewStub(
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::seconds(3));
  proto::HealthCheckRequest request;
  request.set_service(name);
  proto::HealthCheckResponse response;
  const grpc::Status status = stub->Check(&context, request, &response);
  if (!status.ok()) {
    return absl::UnavailableError(
        absl::StrCat(address, ": ", status.error_message()));
  }
  if (response.status() == proto::HealthCheckResponse::SERVING) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat(
      address, ": '", name, "' is ",
      proto::HealthCheckResponse::ServingStatus_Name(response.status())));
}

}  // namespace millrace::server
