#include "services/rpc/call.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "services/errors/errors.h"
#include "services/rpc/error_conversion.h"

namespace millrace::rpc {
namespace {

constexpr size_t kMaxTraceBytes = 128;

std::string NewCallId() {
  static std::atomic<uint64_t> next = 1;
  return absl::StrCat("call-", next++);
}

// The trace id of a W3C traceparent, "00-<32 hex>-<16 hex>-01".
std::string TraceId(const std::string& traceparent) {
  const std::vector<std::string> parts = absl::StrSplit(traceparent, '-');
  return parts.size() == 4 && parts[1].size() == 32 ? parts[1] : "";
}

}  // namespace

bool ParseFrom(const grpc::ByteBuffer& bytes,
               google::protobuf::MessageLite& message) {
  grpc::ByteBuffer copy = bytes;  // shares the bytes
  grpc::ProtoBufferReader reader(&copy);
  return reader.status().ok() && message.ParseFromZeroCopyStream(&reader);
}

grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status Malformed() {
  return errors::MakeError(
      absl::StatusCode::kInvalidArgument, errors::Reason::kMalformedMessage,
      "the bytes are no message of the method, or a string in them is not "
      "UTF-8");
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()),
                      ToRpcStatus(status).SerializeAsString());
}

Call::Call(grpc::CallbackServerContext* context, const ServiceContext& shared,
           std::string method)
    : context_(context),
      shared_(shared),
      method_(std::move(method)),
      id_(NewCallId()),
      request_id_(Metadata("x-request-id", shared.max_request_id_bytes)),
      trace_id_(TraceId(Metadata("traceparent", kMaxTraceBytes))),
      start_(absl::Now()) {
  shared_.metrics->RpcStarted(method_);
}

Call::~Call() { Record(absl::StatusCode::kCancelled, ""); }

absl::Status Call::Authenticate() {
  if (shared_.token == nullptr) return absl::OkStatus();
  const auto& metadata = context_->client_metadata();
  const auto found = metadata.find("authorization");
  const bool given = found != metadata.end();
  if (given && shared_.token->Matches(absl::string_view(
                   found->second.data(), found->second.size()))) {
    return absl::OkStatus();
  }
  shared_.metrics->AuthFailed(given ? "wrong" : "missing");
  return errors::MakeError(
      absl::StatusCode::kUnauthenticated, errors::Reason::kUnauthenticated,
      "metadata 'authorization: Bearer TOKEN' with this server's token is "
      "required");
}

absl::StatusOr<const Serving*> Call::Admit() {
  absl::Status status = Authenticate();
  if (!status.ok()) return status;
  auto serving = shared_.gate->Get();
  if (!serving.ok()) {
    shared_.metrics->AdmissionRejected(errors::ReasonOf(serving.status()));
  }
  return serving;
}

void Call::Accept() {
  if (std::exchange(accepted_, true)) return;
  if (!request_id_.empty()) {
    context_->AddInitialMetadata("x-request-id", request_id_);
  }
}

void Call::AddHeader(const std::string& key, const std::string& value) {
  context_->AddInitialMetadata(key, value);
}

void Call::SetSession(const std::string& session_id) {
  session_ = metrics::SessionTag(session_id);
}

grpc::Status Call::Over(const absl::Status& status) {
  // Not among the headers: a refusal without headers can be retried.
  if (!accepted_ && !request_id_.empty()) {
    context_->AddTrailingMetadata("x-request-id", request_id_);
  }
  const errors::Details details = errors::DetailsOf(status);
  if (details.retry_after) {
    context_->AddTrailingMetadata(
        "grpc-retry-pushback-ms",
        absl::StrCat(absl::ToInt64Milliseconds(*details.retry_after)));
  }
  Record(status.code(), errors::ReasonOf(status));
  return ToGrpc(status);
}

std::string Call::Metadata(const char* key, size_t max_bytes) const {
  const auto& metadata = context_->client_metadata();
  const auto found = metadata.find(key);
  if (found == metadata.end() || found->second.size() > max_bytes) return "";
  return std::string(found->second.data(), found->second.size());
}

void Call::Record(absl::StatusCode code, const std::string& reason) {
  if (std::exchange(recorded_, true)) return;
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
  const std::string name = absl::StatusCodeToString(code);
  shared_.metrics->RpcFinished(method_, name, seconds);
  metrics::LogFields fields = {
      {"method", method_}, {"code", name}, {"duration_s", seconds}};
  if (!reason.empty()) fields.emplace_back("reason", reason);
  if (!session_.empty()) fields.emplace_back("session", session_);
  if (!request_id_.empty()) fields.emplace_back("request_id", request_id_);
  if (!trace_id_.empty()) fields.emplace_back("trace_id", trace_id_);
  shared_.log->Write(metrics::Level::kInfo, "call", "", fields);
}

}  // namespace millrace::rpc
