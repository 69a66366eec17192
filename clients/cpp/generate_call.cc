#include "clients/cpp/generate_call.h"

#include <utility>

#include "clients/cpp/status.h"

namespace millrace::client {

void GenerateCall::Start(v1::InferenceService::Stub& stub,
                         std::unique_ptr<grpc::ClientContext> context,
                         const v1::GenerateRequest& request,
                         EventHandler on_event, EndHandler on_end) {
  auto* call = new GenerateCall(std::move(context), request,
                                std::move(on_event), std::move(on_end));
  stub.async()->Generate(call->context_.get(), &call->request_, call);
  call->StartRead(&call->event_);
  call->StartCall();
}

GenerateCall::GenerateCall(std::unique_ptr<grpc::ClientContext> context,
                           const v1::GenerateRequest& request,
                           EventHandler on_event, EndHandler on_end)
    : context_(std::move(context)),
      request_(request),
      on_event_(std::move(on_event)),
      on_end_(std::move(on_end)) {}

void GenerateCall::OnReadDone(bool ok) {
  if (!ok) return;
  if (event_.has_finished()) finished_ = event_.finished();
  if (!on_event_(event_)) context_->TryCancel();
  StartRead(&event_);
}

void GenerateCall::OnDone(const grpc::Status& status) {
  const std::unique_ptr<GenerateCall> self(this);
  on_end_(EndOf(ToStatus(status), std::move(finished_)));
}

}  // namespace millrace::client
