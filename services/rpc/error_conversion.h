// Statuses as clients see them: as an Error within a stream, and as a gRPC
// status with google.rpc details.
#ifndef MILLRACE_SERVICES_RPC_ERROR_CONVERSION_H_
#define MILLRACE_SERVICES_RPC_ERROR_CONVERSION_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/status.pb.h"
#include "millrace/v1/common.pb.h"

namespace millrace::rpc {

// REQUIRES: !status.ok().
v1::Error ToError(const absl::Status& status);

// With ErrorInfo, and BadRequest, RetryInfo and QuotaFailure where they apply;
// at most one of each. A status without a reason gets none of them: it is not
// one of ours (a deadline, a cancellation).
// REQUIRES: !status.ok().
google::rpc::Status ToRpcStatus(const absl::Status& status);

// The same status with its field, if it has one, under `prefix`: an option
// "window_tokens" becomes "cache_policy.sinks.window_tokens".
absl::Status WithFieldPrefix(const absl::Status& status,
                             absl::string_view prefix);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_ERROR_CONVERSION_H_
