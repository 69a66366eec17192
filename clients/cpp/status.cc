#include "clients/cpp/status.h"

#include <grpcpp/support/status.h>

#include "absl/strings/cord.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace millrace::client {
namespace {

constexpr char kReasonUrl[] = "millrace/reason";

absl::Status Make(int code, const std::string& message,
                  const std::string& reason) {
  absl::Status status(static_cast<absl::StatusCode>(code), message);
  if (!reason.empty()) status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

std::string ReasonIn(const std::string& details) {
  google::rpc::Status status;
  if (!status.ParseFromString(details)) return "";
  google::rpc::ErrorInfo info;
  for (const google::protobuf::Any& detail : status.details()) {
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

}  // namespace

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kReasonUrl);
  return payload.has_value() ? std::string(*payload) : "";
}

absl::Status ToStatus(const v1::Error& error) {
  return Make(error.code(), error.message(), error.reason());
}

absl::Status ToStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return Make(status.error_code(), status.error_message(),
              ReasonIn(status.error_details()));
}

}  // namespace millrace::client
