#include "services/errors/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

namespace millrace::errors {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(Errors, CarryCodeReasonAndMessage) {
  const absl::Status status =
      MakeError(absl::StatusCode::kFailedPrecondition, Reason::kTurnRunning,
                "turn 3 is still running");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "turn 3 is still running");
  EXPECT_EQ(ReasonOf(status), "TURN_RUNNING");
  EXPECT_TRUE(HasReason(status, Reason::kTurnRunning));
  EXPECT_FALSE(HasReason(status, Reason::kNoTurn));
}

TEST(Errors, CarryFieldFiguresAndTheTimeToWait) {
  const absl::Status status = MakeError(
      absl::StatusCode::kResourceExhausted, Reason::kKvBudget, "no memory",
      {.field = "cache_policy.sinks.window_tokens",
       .metadata = {{"available", "10"}, {"requested", "22"}},
       .retry_after = absl::Milliseconds(1500)});
  const Details details = DetailsOf(status);
  EXPECT_EQ(details.field, "cache_policy.sinks.window_tokens");
  EXPECT_THAT(details.metadata,
              ElementsAre(Pair("available", "10"), Pair("requested", "22")));
  EXPECT_EQ(details.retry_after, absl::Milliseconds(1500));
}

TEST(Errors, AStatusWithoutDetailsHasNone) {
  const absl::Status status = absl::InternalError("x");
  EXPECT_EQ(ReasonOf(status), "");
  EXPECT_EQ(DetailsOf(status).field, "");
  EXPECT_TRUE(DetailsOf(status).metadata.empty());
  EXPECT_EQ(DetailsOf(status).retry_after, std::nullopt);
}

TEST(Errors, PayloadsOfLowerLayersAreUnderstood) {
  absl::Status status = absl::InvalidArgumentError("window_tokens=0");
  status.SetPayload("millrace/reason", absl::Cord("INVALID_CACHE_POLICY"));
  status.SetPayload("millrace/field", absl::Cord("window_tokens"));
  EXPECT_TRUE(HasReason(status, Reason::kInvalidCachePolicy));
  EXPECT_EQ(DetailsOf(status).field, "window_tokens");
}

TEST(Errors, AnInvalidFieldNamesItself) {
  const absl::Status status = InvalidField("sampling.top_p", "top_p=2");
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(DetailsOf(status).field, "sampling.top_p");
}

TEST(Errors, EveryReasonHasANameOfItsOwn) {
  std::set<absl::string_view> names;
  for (int i = 0; i <= static_cast<int>(Reason::kModelFileInvalid); ++i) {
    const absl::string_view name = ReasonName(static_cast<Reason>(i));
    EXPECT_FALSE(name.empty());
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

}  // namespace
}  // namespace millrace::errors
