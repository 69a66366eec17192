// absl times and durations to and from google.protobuf's.
#ifndef MILLRACE_SERVICES_RPC_TIME_CONVERSION_H_
#define MILLRACE_SERVICES_RPC_TIME_CONVERSION_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace millrace::rpc {

// REQUIRES: finite.
google::protobuf::Duration ToProto(absl::Duration duration);
google::protobuf::Timestamp ToProto(absl::Time time);

// INVALID_FIELD names `field` if the value is no valid Duration: seconds beyond
// 10,000 years, nanoseconds of a whole second or of the other sign.
absl::StatusOr<absl::Duration> FromProto(
    const google::protobuf::Duration& duration, absl::string_view field);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_TIME_CONVERSION_H_
