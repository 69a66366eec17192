// What every call has: credentials, the gate, details of a status, metadata.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "millrace/v1/control.grpc.pb.h"
#include "millrace/v1/session.grpc.pb.h"
#include "services/rpc/control_service.h"
#include "services/rpc/session_service.h"
#include "tests/services/rpc/service_harness.h"

namespace millrace::rpc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "";
}

class CallTest : public ::testing::Test {
 protected:
  grpc::Status GetLoad(grpc::ClientContext& context) {
    v1::GetLoadResponse response;
    return v1::ControlService::NewStub(channel_)->GetLoad(
        &context, v1::GetLoadRequest(), &response);
  }
  void UseToken() {
    token_ = *auth::BearerToken::FromString("0123456789abcdef");
    harness_.context.token = &*token_;
  }

  std::optional<auth::BearerToken> token_;
  ServiceHarness harness_;
  std::shared_ptr<grpc::Channel> channel_ =
      harness_.Serve(NewControlService(harness_.context));
};

TEST_F(CallTest, FailsWithModelLoadingUntilTheModelIsThere) {
  grpc::ClientContext context;
  const grpc::Status status = GetLoad(context);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), "MODEL_LOADING");
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto pushback = trailers.find("grpc-retry-pushback-ms");
  ASSERT_NE(pushback, trailers.end());
  EXPECT_EQ(pushback->second, "1000");
}

TEST_F(CallTest, RefusalsComeWithoutHeaders) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "r1");
  GetLoad(context);
  EXPECT_TRUE(context.GetServerInitialMetadata().empty());
  EXPECT_EQ(context.GetServerTrailingMetadata().find("x-request-id")->second,
            "r1");
}

TEST_F(CallTest, WithoutTheTokenNobodyGetsIn) {
  UseToken();
  grpc::ClientContext none, wrong;
  EXPECT_EQ(ReasonOf(GetLoad(none)), "UNAUTHENTICATED");
  wrong.AddMetadata("authorization", "Bearer 0123456789abcdeX");
  const grpc::Status status = GetLoad(wrong);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(status.error_message(), Not(HasSubstr("0123456789")));
  EXPECT_THAT(harness_.metrics.Scrape(),
              HasSubstr("millrace_auth_failures_total{reason=\"wrong\"} 1"));
}

TEST_F(CallTest, WithTheTokenOneGetsAsFarAsWithoutAny) {
  UseToken();
  grpc::ClientContext right;
  right.AddMetadata("authorization", "Bearer 0123456789abcdef");
  EXPECT_EQ(ReasonOf(GetLoad(right)), "MODEL_LOADING");
}

TEST_F(CallTest, LogsOneLineWithTheIdsThatTheClientSent) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "r\"1");
  context.AddMetadata("traceparent",
                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
                      "01");
  GetLoad(context);
  EXPECT_THAT(harness_.logged,
              AllOf(HasSubstr("\"method\":\"millrace.v1.ControlService/GetLoad"
                              "\""),
                    HasSubstr("\"code\":\"UNAVAILABLE\""),
                    HasSubstr("\"reason\":\"MODEL_LOADING\""),
                    HasSubstr("\"request_id\":\"r\\\"1\""),
                    HasSubstr("0af7651916cd43dd8448eb211c80319c")));
}

TEST_F(CallTest, LeavesOutIdsThatAreTooLong) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", std::string(129, 'x'));
  GetLoad(context);
  EXPECT_THAT(harness_.logged, Not(HasSubstr("request_id")));
}

TEST(ConnectCall, FailsWithModelLoadingBeforeItReads) {
  ServiceHarness harness;
  const auto channel = harness.Serve(NewSessionService(harness.context));
  grpc::ClientContext context;
  const auto stream = v1::SessionService::NewStub(channel)->Connect(&context);
  v1::ConnectResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(ReasonOf(stream->Finish()), "MODEL_LOADING");
}

}  // namespace
}  // namespace millrace::rpc
