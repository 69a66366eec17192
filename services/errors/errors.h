// The errors that a client can see: a status code, and a reason that programs
// can rely on.
//
//   return MakeError(absl::StatusCode::kFailedPrecondition,
//                    Reason::kTurnRunning, "turn 3 is still running");
//   ReasonOf(status)   // "TURN_RUNNING"
//
// An error travels as an absl::Status with payloads; lower layers, which do not
// know this header, attach the two payloads that they need under the same URLs.
// services/rpc turns them into google.rpc details.
#ifndef MILLRACE_SERVICES_ERRORS_ERRORS_H_
#define MILLRACE_SERVICES_ERRORS_ERRORS_H_

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace millrace::errors {

inline constexpr absl::string_view kReasonUrl = "millrace/reason";
inline constexpr absl::string_view kFieldUrl = "millrace/field";
inline constexpr absl::string_view kMetadataUrl = "millrace/metadata";
inline constexpr absl::string_view kRetryAfterUrl = "millrace/retry_after";

// Names are those of proto/millrace/v1/common.proto without their prefix.
enum class Reason {
  kInvalidField,
  kUnknownMessage,
  kMalformedMessage,
  kInvalidCachePolicy,
  kPolicyUnsupportedByBackend,
  kFeatureMissing,
  kNotOpen,
  kAlreadyOpen,
  kSequenceGap,
  kTurnRunning,
  kNoTurn,
  kTurnOver,
  kNotInMessage,
  kPreviousRejected,
  kInputQueueFull,
  kCacheFull,
  kNoChatTemplate,
  kChatTemplateNotIncremental,
  kKvBudget,
  kSessionLimit,
  kQueueFull,
  kDraining,
  kModelLoading,
  kSessionNotFound,
  kSessionFenced,
  kSlowConsumer,
  kUnauthenticated,
  kNonfiniteLogits,
  kDeviceError,
  kModelFileInvalid,
};

// "TURN_RUNNING".
absl::string_view ReasonName(Reason reason);

struct Details {
  std::string field = {};  // path in a message, "sampling.temperature"
  std::map<std::string, std::string> metadata = {};
  std::optional<absl::Duration> retry_after = std::nullopt;
};

absl::Status MakeError(absl::StatusCode code, Reason reason,
                       absl::string_view message, const Details& details = {});

// INVALID_ARGUMENT, INVALID_FIELD.
absl::Status InvalidField(absl::string_view field, absl::string_view message);

// The reason's name; empty if the status has none.
std::string ReasonOf(const absl::Status& status);
bool HasReason(const absl::Status& status, Reason reason);
Details DetailsOf(const absl::Status& status);

}  // namespace millrace::errors

#endif  // MILLRACE_SERVICES_ERRORS_ERRORS_H_
