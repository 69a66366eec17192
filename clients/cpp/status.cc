#include "clients/cpp/status.h"

#include <google/protobuf/map.h>
#include <grpcpp/support/status.h>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace millrace::client {
namespace {

using Figures = google::protobuf::Map<std::string, std::string>;

constexpr char kReasonUrl[] = "millrace/reason";
constexpr char kFigureUrl[] = "millrace/figure/";  // its name follows

absl::Status Make(int code, const std::string& message,
                  const std::string& reason, const Figures& figures) {
  absl::Status status(static_cast<absl::StatusCode>(code), message);
  if (!reason.empty()) status.SetPayload(kReasonUrl, absl::Cord(reason));
  for (const auto& [name, value] : figures) {
    status.SetPayload(absl::StrCat(kFigureUrl, name), absl::Cord(value));
  }
  return status;
}

google::rpc::ErrorInfo InfoIn(const std::string& details) {
  google::rpc::Status status;
  if (!status.ParseFromString(details)) return {};
  google::rpc::ErrorInfo info;
  for (const google::protobuf::Any& detail : status.details()) {
    if (detail.UnpackTo(&info)) return info;
  }
  return {};
}

std::string Payload(const absl::Status& status, const std::string& url) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : "";
}

}  // namespace

std::string ReasonOf(const absl::Status& status) {
  return Payload(status, kReasonUrl);
}

std::string FigureOf(const absl::Status& status, const std::string& name) {
  return Payload(status, absl::StrCat(kFigureUrl, name));
}

absl::Status ToStatus(const v1::Error& error) {
  return Make(error.code(), error.message(), error.reason(), error.metadata());
}

absl::Status ToStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const google::rpc::ErrorInfo info = InfoIn(status.error_details());
  return Make(status.error_code(), status.error_message(), info.reason(),
              info.metadata());
}

}  // namespace millrace::client
