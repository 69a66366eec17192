#include "services/rpc/error_conversion.h"

#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "services/errors/errors.h"
#include "services/rpc/time_conversion.h"

namespace millrace::rpc {
namespace {

using absl::StatusCode;
using errors::Reason;

absl::Status Status(StatusCode code, Reason reason,
                    const errors::Details& details = {}) {
  return errors::MakeError(code, reason, "message", details);
}

// The short names of the details that travel with a status, in order.
std::string DetailsOf(const absl::Status& status) {
  std::string names;
  const google::rpc::Status converted = ToRpcStatus(status);
  for (const auto& detail : converted.details()) {
    const std::string& url = detail.type_url();
    absl::StrAppend(&names, url.substr(url.rfind('.') + 1), " ");
  }
  return names;
}

template <typename Detail>
Detail Get(const absl::Status& status) {
  Detail out;
  const google::rpc::Status converted = ToRpcStatus(status);
  for (const auto& detail : converted.details()) {
    if (detail.Is<Detail>()) detail.UnpackTo(&out);
  }
  return out;
}

// The table of errors: the code and the details of each reason.
TEST(ErrorConversion, EveryReasonCarriesItsCodeAndDetails) {
  errors::Details field, retry;
  field.field = "sampling.top_p";
  retry.retry_after = absl::Seconds(2);
  const struct {
    StatusCode code;
    Reason reason;
    errors::Details details;
    const char* expected;
  } rows[] = {
      {StatusCode::kInvalidArgument, Reason::kInvalidField, field,
       "ErrorInfo BadRequest "},
      {StatusCode::kInvalidArgument, Reason::kUnknownMessage, {}, "ErrorInfo "},
      {StatusCode::kInvalidArgument,
       Reason::kMalformedMessage,
       {},
       "ErrorInfo "},
      {StatusCode::kInvalidArgument, Reason::kInvalidCachePolicy, field,
       "ErrorInfo BadRequest "},
      {StatusCode::kFailedPrecondition,
       Reason::kPolicyUnsupportedByBackend,
       {},
       "ErrorInfo "},
      {StatusCode::kFailedPrecondition,
       Reason::kFeatureMissing,
       {},
       "ErrorInfo "},
      {StatusCode::kFailedPrecondition, Reason::kNotOpen, {}, "ErrorInfo "},
      {StatusCode::kFailedPrecondition, Reason::kAlreadyOpen, {}, "ErrorInfo "},
      {StatusCode::kFailedPrecondition, Reason::kCacheFull, {}, "ErrorInfo "},
      {StatusCode::kFailedPrecondition,
       Reason::kNoChatTemplate,
       {},
       "ErrorInfo "},
      {StatusCode::kResourceExhausted, Reason::kKvBudget, retry,
       "ErrorInfo QuotaFailure RetryInfo "},
      {StatusCode::kResourceExhausted, Reason::kSessionLimit, retry,
       "ErrorInfo QuotaFailure RetryInfo "},
      {StatusCode::kResourceExhausted, Reason::kQueueFull, retry,
       "ErrorInfo QuotaFailure RetryInfo "},
      {StatusCode::kUnavailable, Reason::kDraining, retry,
       "ErrorInfo RetryInfo "},
      {StatusCode::kUnavailable, Reason::kModelLoading, retry,
       "ErrorInfo RetryInfo "},
      {StatusCode::kNotFound, Reason::kSessionNotFound, {}, "ErrorInfo "},
      {StatusCode::kAborted, Reason::kSessionFenced, {}, "ErrorInfo "},
      {StatusCode::kAborted, Reason::kSlowConsumer, {}, "ErrorInfo "},
      {StatusCode::kUnauthenticated,
       Reason::kUnauthenticated,
       {},
       "ErrorInfo "},
      {StatusCode::kInternal, Reason::kNonfiniteLogits, {}, "ErrorInfo "},
      {StatusCode::kInternal, Reason::kDeviceError, {}, "ErrorInfo "},
  };
  for (const auto& row : rows) {
    const absl::Status status = Status(row.code, row.reason, row.details);
    const std::string name(errors::ReasonName(row.reason));
    EXPECT_EQ(DetailsOf(status), row.expected) << name;
    EXPECT_EQ(ToRpcStatus(status).code(), static_cast<int>(row.code)) << name;
    const auto info = Get<google::rpc::ErrorInfo>(status);
    EXPECT_EQ(info.reason(), name);
    EXPECT_EQ(info.domain(), "millrace");
    EXPECT_LE(name.size(), 63u);
    const v1::Error error = ToError(status);
    EXPECT_EQ(error.code(), static_cast<int>(row.code)) << name;
    EXPECT_EQ(error.reason(), name);
    EXPECT_EQ(error.has_retry_after(), row.details.retry_after.has_value());
  }
}

TEST(ErrorConversion, FiguresTravelInErrorInfoAndInError) {
  errors::Details details;
  details.metadata["expected_seq"] = "4";
  const absl::Status status =
      Status(StatusCode::kFailedPrecondition, Reason::kSequenceGap, details);
  EXPECT_EQ(Get<google::rpc::ErrorInfo>(status).metadata().at("expected_seq"),
            "4");
  EXPECT_EQ(ToError(status).metadata().at("expected_seq"), "4");
}

TEST(ErrorConversion, BadRequestNamesTheField) {
  const absl::Status status =
      errors::InvalidField("inputs[2].token_ids.ids[0]", "too large");
  const auto bad = Get<google::rpc::BadRequest>(status);
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).field(), "inputs[2].token_ids.ids[0]");
  EXPECT_EQ(bad.field_violations(0).description(), "too large");
  EXPECT_EQ(ToError(status).field(), "inputs[2].token_ids.ids[0]");
}

TEST(ErrorConversion, RetryInfoTellsHowLong) {
  errors::Details details;
  details.retry_after = absl::Milliseconds(1500);
  const auto retry = Get<google::rpc::RetryInfo>(
      Status(StatusCode::kUnavailable, Reason::kDraining, details));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
}

TEST(ErrorConversion, StatusOfNoReasonHasNoDetails) {
  EXPECT_EQ(DetailsOf(absl::CancelledError("gone")), "");
}

TEST(ErrorConversion, FieldsOfOptionsGetThePathOfTheirMessage) {
  errors::Details details;
  details.field = "window_tokens";
  const absl::Status status =
      WithFieldPrefix(Status(StatusCode::kInvalidArgument,
                             Reason::kInvalidCachePolicy, details),
                      "cache_policy.sinks");
  EXPECT_EQ(errors::DetailsOf(status).field,
            "cache_policy.sinks.window_tokens");
  EXPECT_TRUE(errors::HasReason(status, Reason::kInvalidCachePolicy));
}

TEST(TimeConversion, DurationsComeBack) {
  for (absl::Duration duration :
       {absl::ZeroDuration(), absl::Milliseconds(1500), absl::Hours(24 * 365),
        absl::Nanoseconds(1)}) {
    EXPECT_EQ(*FromProto(ToProto(duration), "d"), duration);
  }
}

TEST(TimeConversion, TimesBeforeTheEpochHavePositiveNanos) {
  const auto time = ToProto(absl::UnixEpoch() - absl::Milliseconds(250));
  EXPECT_EQ(time.seconds(), -1);
  EXPECT_EQ(time.nanos(), 750'000'000);
}

}  // namespace
}  // namespace millrace::rpc
