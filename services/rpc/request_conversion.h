// Requests as native forms, every range checked. Errors are INVALID_FIELD
// unless said otherwise; their field is the path from the message that the
// client sent: "inputs[2].token_ids.ids[0]".
#ifndef MILLRACE_SERVICES_RPC_REQUEST_CONVERSION_H_
#define MILLRACE_SERVICES_RPC_REQUEST_CONVERSION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "millrace/v1/common.pb.h"
#include "millrace/v1/session.pb.h"
#include "services/rpc/request_limits.h"
#include "services/session/client_message.h"

namespace millrace::rpc {

absl::StatusOr<session::Input> FromProto(const v1::Input& input,
                                         const RequestLimits& limits,
                                         absl::string_view field);

absl::StatusOr<std::vector<session::Input>> FromProto(
    const google::protobuf::RepeatedPtrField<v1::Input>& inputs,
    const RequestLimits& limits);

// Refuses a name that is not the model's. Empty is a name too.
absl::Status CheckModelName(const std::string& name,
                            const RequestLimits& limits);

// FEATURE_MISSING for a required feature that this server lacks.
absl::StatusOr<session::OpenOptions> FromProto(const v1::OpenSession& open,
                                               const RequestLimits& limits);

// Of any message but `open` and `resume`. Never fails: what is refused becomes
// session::Refused with the reason, UNKNOWN_MESSAGE for an arm that this server
// does not know.
// REQUIRES: message_case() is neither kOpen nor kResume.
session::ClientMessage FromProto(const v1::ConnectRequest& request,
                                 const RequestLimits& limits);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_REQUEST_CONVERSION_H_
