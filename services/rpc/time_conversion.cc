#include "services/rpc/time_conversion.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"

namespace millrace::rpc {
namespace {

// The bounds of google.protobuf.Duration.
constexpr int64_t kMaxSeconds = 315'576'000'000;
constexpr int64_t kNanos = 1'000'000'000;

}  // namespace

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration out;
  out.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  out.set_nanos(static_cast<int32_t>(
      absl::IDivDuration(duration, absl::Nanoseconds(1), &duration)));
  return out;
}

google::protobuf::Timestamp ToProto(absl::Time time) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  google::protobuf::Timestamp out;
  out.set_seconds(seconds);
  out.set_nanos(static_cast<int32_t>(
      absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  return out;
}

absl::StatusOr<absl::Duration> FromProto(
    const google::protobuf::Duration& duration, absl::string_view field) {
  const int64_t seconds = duration.seconds(), nanos = duration.nanos();
  const bool in_range = seconds >= -kMaxSeconds && seconds <= kMaxSeconds &&
                        nanos > -kNanos && nanos < kNanos;
  if (!in_range || (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0)) {
    return errors::InvalidField(
        field, absl::StrCat(field, " is no duration: ", seconds, " s and ",
                            nanos, " ns"));
  }
  return absl::Seconds(seconds) + absl::Nanoseconds(nanos);
}

}  // namespace millrace::rpc
