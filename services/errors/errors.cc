#include "services/errors/errors.h"

#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace millrace::errors {
namespace {

std::string Payload(const absl::Status& status, absl::string_view url) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : "";
}

}  // namespace

absl::string_view ReasonName(Reason reason) {
  switch (reason) {
    case Reason::kInvalidField:
      return "INVALID_FIELD";
    case Reason::kUnknownMessage:
      return "UNKNOWN_MESSAGE";
    case Reason::kMalformedMessage:
      return "MALFORMED_MESSAGE";
    case Reason::kInvalidCachePolicy:
      return "INVALID_CACHE_POLICY";
    case Reason::kPolicyUnsupportedByBackend:
      return "POLICY_UNSUPPORTED_BY_BACKEND";
    case Reason::kFeatureMissing:
      return "FEATURE_MISSING";
    case Reason::kNotOpen:
      return "NOT_OPEN";
    case Reason::kAlreadyOpen:
      return "ALREADY_OPEN";
    case Reason::kSequenceGap:
      return "SEQUENCE_GAP";
    case Reason::kTurnRunning:
      return "TURN_RUNNING";
    case Reason::kNoTurn:
      return "NO_TURN";
    case Reason::kTurnOver:
      return "TURN_OVER";
    case Reason::kNotInMessage:
      return "NOT_IN_MESSAGE";
    case Reason::kPreviousRejected:
      return "PREVIOUS_REJECTED";
    case Reason::kInputQueueFull:
      return "INPUT_QUEUE_FULL";
    case Reason::kCacheFull:
      return "CACHE_FULL";
    case Reason::kNoChatTemplate:
      return "NO_CHAT_TEMPLATE";
    case Reason::kChatTemplateNotIncremental:
      return "CHAT_TEMPLATE_NOT_INCREMENTAL";
    case Reason::kKvBudget:
      return "KV_BUDGET";
    case Reason::kSessionLimit:
      return "SESSION_LIMIT";
    case Reason::kQueueFull:
      return "QUEUE_FULL";
    case Reason::kDraining:
      return "DRAINING";
    case Reason::kModelLoading:
      return "MODEL_LOADING";
    case Reason::kSessionNotFound:
      return "SESSION_NOT_FOUND";
    case Reason::kSessionFenced:
      return "SESSION_FENCED";
    case Reason::kSlowConsumer:
      return "SLOW_CONSUMER";
    case Reason::kUnauthenticated:
      return "UNAUTHENTICATED";
    case Reason::kNonfiniteLogits:
      return "NONFINITE_LOGITS";
    case Reason::kDeviceError:
      return "DEVICE_ERROR";
    case Reason::kModelFileInvalid:
      return "MODEL_FILE_INVALID";
  }
  return "";
}

absl::Status MakeError(absl::StatusCode code, Reason reason,
                       absl::string_view message, const Details& details) {
  absl::Status status(code, message);
  status.SetPayload(kReasonUrl, absl::Cord(ReasonName(reason)));
  if (!details.field.empty()) {
    status.SetPayload(kFieldUrl, absl::Cord(details.field));
  }
  if (!details.metadata.empty()) {
    status.SetPayload(
        kMetadataUrl,
        absl::Cord(absl::StrJoin(details.metadata, "\n",
                                 absl::PairFormatter("="))));
  }
  if (details.retry_after.has_value()) {
    status.SetPayload(kRetryAfterUrl,
                      absl::Cord(absl::FormatDuration(*details.retry_after)));
  }
  return status;
}

absl::Status InvalidField(absl::string_view field, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, Reason::kInvalidField,
                   message, {.field = std::string(field)});
}

std::string ReasonOf(const absl::Status& status) {
  return Payload(status, kReasonUrl);
}

bool HasReason(const absl::Status& status, Reason reason) {
  return ReasonOf(status) == ReasonName(reason);
}

Details DetailsOf(const absl::Status& status) {
  Details details{.field = Payload(status, kFieldUrl)};
  const std::string metadata = Payload(status, kMetadataUrl);
  for (absl::string_view line :
       absl::StrSplit(metadata, '\n', absl::SkipEmpty())) {
    details.metadata.insert(absl::StrSplit(line, absl::MaxSplits('=', 1)));
  }
  absl::Duration retry_after;
  if (absl::ParseDuration(Payload(status, kRetryAfterUrl), &retry_after)) {
    details.retry_after = retry_after;
  }
  return details;
}

}  // namespace millrace::errors
