#include "services/rpc/error_conversion.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "services/errors/errors.h"
#include "services/rpc/time_conversion.h"

namespace millrace::rpc {
namespace {

constexpr char kDomain[] = "millrace";

void AddErrorInfo(absl::string_view reason, const errors::Details& details,
                  google::rpc::Status& out) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kDomain);
  for (const auto& [key, value] : details.metadata) {
    (*info.mutable_metadata())[key] = value;
  }
  out.add_details()->PackFrom(info);
}

void AddBadRequest(const errors::Details& details, absl::string_view message,
                   google::rpc::Status& out) {
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field(details.field);
  violation->set_description(std::string(message));
  out.add_details()->PackFrom(bad);
}

void AddQuotaFailure(absl::string_view reason, absl::string_view message,
                     google::rpc::Status& out) {
  google::rpc::QuotaFailure quota;
  auto* violation = quota.add_violations();
  violation->set_subject(std::string(reason));
  violation->set_description(std::string(message));
  out.add_details()->PackFrom(quota);
}

}  // namespace

v1::Error ToError(const absl::Status& status) {
  const errors::Details details = errors::DetailsOf(status);
  v1::Error error;
  error.set_code(static_cast<int>(status.code()));
  error.set_reason(errors::ReasonOf(status));
  error.set_message(std::string(status.message()));
  error.set_field(details.field);
  for (const auto& [key, value] : details.metadata) {
    (*error.mutable_metadata())[key] = value;
  }
  if (details.retry_after) {
    *error.mutable_retry_after() = ToProto(*details.retry_after);
  }
  return error;
}

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  out.set_message(std::string(status.message()));
  const std::string reason = errors::ReasonOf(status);
  if (reason.empty()) return out;
  const errors::Details details = errors::DetailsOf(status);
  AddErrorInfo(reason, details, out);
  if (!details.field.empty()) AddBadRequest(details, status.message(), out);
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    AddQuotaFailure(reason, status.message(), out);
  }
  if (details.retry_after) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = ToProto(*details.retry_after);
    out.add_details()->PackFrom(retry);
  }
  return out;
}

absl::Status WithFieldPrefix(const absl::Status& status,
                             absl::string_view prefix) {
  const auto field = status.GetPayload(errors::kFieldUrl);
  if (!field || field->empty()) return status;
  absl::Status out = status;
  out.SetPayload(errors::kFieldUrl,
                 absl::Cord(absl::StrCat(prefix, ".", std::string(*field))));
  return out;
}

}  // namespace millrace::rpc
