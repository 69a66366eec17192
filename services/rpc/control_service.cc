#include "services/rpc/control_service.h"

#include "millrace/v1/control.grpc.pb.h"
#include "services/rpc/unary_call.h"

namespace millrace::rpc {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

class ControlService final : public v1::ControlService::CallbackService {
 public:
  explicit ControlService(const ServiceContext& shared) : shared_(shared) {}

  ServerUnaryReactor* GetServerInfo(
      CallbackServerContext* context, const v1::GetServerInfoRequest*,
      v1::GetServerInfoResponse* response) override {
    return AnswerUnary(context, shared_,
                       "millrace.v1.ControlService/GetServerInfo",
                       [&](const Serving& serving) {
                         *response = serving.server_info;
                         return absl::OkStatus();
                       });
  }

  ServerUnaryReactor* GetModelInfo(
      CallbackServerContext* context, const v1::GetModelInfoRequest*,
      v1::GetModelInfoResponse* response) override {
    return AnswerUnary(context, shared_,
                       "millrace.v1.ControlService/GetModelInfo",
                       [&](const Serving& serving) {
                         *response->mutable_model() = serving.facts.model;
                         return absl::OkStatus();
                       });
  }

  ServerUnaryReactor* GetLoad(CallbackServerContext* context,
                              const v1::GetLoadRequest*,
                              v1::GetLoadResponse* response) override {
    return AnswerUnary(context, shared_, "millrace.v1.ControlService/GetLoad",
                       [&](const Serving& serving) {
                         *response = serving.load();
                         return absl::OkStatus();
                       });
  }

 private:
  const ServiceContext& shared_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewControlService(const ServiceContext& shared) {
  return std::make_unique<ControlService>(shared);
}

}  // namespace millrace::rpc
