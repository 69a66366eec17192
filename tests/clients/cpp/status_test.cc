#include "clients/cpp/status.h"

#include <gtest/gtest.h>

namespace millrace::client {
namespace {

v1::Error CacheFull() {
  v1::Error error;
  error.set_code(9);  // FAILED_PRECONDITION
  error.set_reason("CACHE_FULL");
  error.set_message("no room");
  (*error.mutable_metadata())["limit"] = "8192";
  return error;
}

TEST(ToStatus, KeepsCodeReasonAndMessage) {
  const absl::Status status = ToStatus(CacheFull());
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(ReasonOf(status), "CACHE_FULL");
  EXPECT_EQ(status.message(), "no room");
}

TEST(FigureOf, FiguresOfTheErrorByName) {
  EXPECT_EQ(FigureOf(ToStatus(CacheFull()), "limit"), "8192");
  EXPECT_EQ(FigureOf(ToStatus(CacheFull()), "requested"), "");
  EXPECT_EQ(FigureOf(absl::OkStatus(), "limit"), "");
}

}  // namespace
}  // namespace millrace::client
