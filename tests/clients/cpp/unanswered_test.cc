#include "clients/cpp/unanswered.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/cpp/status.h"

namespace millrace::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::ConnectRequest Append(uint64_t seq) {
  v1::ConnectRequest request;
  request.set_client_seq(seq);
  request.mutable_append();
  return request;
}

std::vector<uint64_t> Numbers(const Unanswered& unanswered) {
  std::vector<uint64_t> numbers;
  for (const auto& [seq, request] : unanswered.requests()) {
    numbers.push_back(seq);
  }
  return numbers;
}

TEST(Unanswered, AnAnswerDropsItsMessageAlone) {
  Unanswered unanswered;
  unanswered.Add(Append(2));
  unanswered.Add(Append(3));
  v1::ConnectResponse queued;
  queued.mutable_input_queued()->set_client_seq(2);
  unanswered.Take(queued);
  EXPECT_THAT(Numbers(unanswered), ElementsAre(3));
  v1::ConnectResponse rejected;
  rejected.mutable_rejected()->set_client_seq(3);
  unanswered.Take(rejected);
  EXPECT_THAT(Numbers(unanswered), IsEmpty());
}

TEST(Unanswered, WhatNamesNoMessageAnswersTheFirstOfItsKind) {
  Unanswered unanswered;
  unanswered.Add(Append(2));
  v1::ConnectRequest interrupt;
  interrupt.mutable_interrupt();
  for (uint64_t seq : {3, 4}) {
    interrupt.set_client_seq(seq);
    unanswered.Add(interrupt);
  }
  v1::ConnectResponse finished;
  finished.mutable_turn_finished();
  unanswered.Take(finished);
  EXPECT_THAT(Numbers(unanswered), ElementsAre(2, 4));
}

TEST(Unanswered, OutputAnswersNothing) {
  Unanswered unanswered;
  unanswered.Add(Append(2));
  v1::ConnectResponse output;
  output.mutable_output();
  unanswered.Take(output);
  EXPECT_THAT(Numbers(unanswered), ElementsAre(2));
}

TEST(Status, AnErrorInAMessageKeepsCodeReasonAndWords) {
  v1::Error error;
  error.set_code(9);
  error.set_reason("TURN_RUNNING");
  error.set_message("turn 3 is still running");
  const absl::Status status = ToStatus(error);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "TURN_RUNNING");
  EXPECT_EQ(status.message(), "turn 3 is still running");
}

TEST(Status, WithoutReasonThereIsNone) {
  EXPECT_EQ(ReasonOf(absl::UnavailableError("gone")), "");
}

}  // namespace
}  // namespace millrace::client
