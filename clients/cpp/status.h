// Errors of the service as absl::Status.
//
// The reason that programs can rely on, such as "TURN_RUNNING", travels as a
// payload; see the list at message Error of proto/millrace/v1/common.proto.
#ifndef MILLRACE_CLIENTS_CPP_STATUS_H_
#define MILLRACE_CLIENTS_CPP_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "millrace/v1/common.pb.h"

namespace grpc {
class Status;
}

namespace millrace::client {

// The reason's name; empty if the status has none.
std::string ReasonOf(const absl::Status& status);

// A figure that it carries, such as "limit"; empty if it has none of the name.
std::string FigureOf(const absl::Status& status, const std::string& name);

// An error that came in a message of a stream.
absl::Status ToStatus(const v1::Error& error);

// How a call ended; the reason is taken from its google.rpc.ErrorInfo.
absl::Status ToStatus(const grpc::Status& status);

// What a call gave: `finished`, unless the call failed or says why in it.
template <typename Finished>
absl::StatusOr<Finished> EndOf(const absl::Status& status, Finished finished) {
  if (!status.ok()) return status;
  if (finished.has_error()) return ToStatus(finished.error());
  return finished;
}

}  // namespace millrace::client

#endif  // MILLRACE_CLIENTS_CPP_STATUS_H_
