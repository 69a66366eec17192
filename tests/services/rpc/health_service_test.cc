#include <gtest/gtest.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "services/rpc/health.h"
#include "tests/services/rpc/service_harness.h"

namespace millrace::rpc {
namespace {

namespace proto = ::grpc::health::v1;
using proto::HealthCheckResponse;

class HealthTest : public ::testing::Test {
 protected:
  grpc::Status Check(const std::string& name, HealthCheckResponse& response) {
    grpc::ClientContext context;
    proto::HealthCheckRequest request;
    request.set_service(name);
    return stub_->Check(&context, request, &response);
  }
  HealthCheckResponse::ServingStatus Check(const std::string& name) {
    HealthCheckResponse response;
    EXPECT_TRUE(Check(name, response).ok()) << name;
    return response.status();
  }

  HealthStates states_{{"", "liveness", "readiness"}};
  ServiceHarness harness_;
  std::unique_ptr<proto::Health::Stub> stub_ = proto::Health::NewStub(
      harness_.Serve(NewHealthService(&states_, &harness_.io)));
};

// Reads the states of a name as they change.
class Watcher {
 public:
  Watcher(proto::Health::Stub& stub, const std::string& name) {
    proto::HealthCheckRequest request;
    request.set_service(name);
    reader_ = stub.Watch(&context_, request);
  }
  ~Watcher() {
    context_.TryCancel();
    reader_->Finish();
  }
  HealthCheckResponse::ServingStatus Next() {
    HealthCheckResponse response;
    EXPECT_TRUE(reader_->Read(&response));
    return response.status();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader_;
};

TEST_F(HealthTest, NamesAreSetOneByOne) {
  states_.Set("liveness", true);
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check("readiness"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
  states_.Set("readiness", true);
  EXPECT_EQ(Check("readiness"), HealthCheckResponse::SERVING);
}

TEST_F(HealthTest, UnknownNameIsNotFound) {
  HealthCheckResponse response;
  EXPECT_EQ(Check("nobody", response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(HealthTest, WatchHearsEveryChange) {
  Watcher watcher(*stub_, "readiness");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
  states_.Set("readiness", true);
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);
  states_.Set("liveness", true);   // another's
  states_.Set("readiness", true);  // no change
  states_.Set("readiness", false);
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthTest, WatchOfAnUnknownNameStaysOpen) {
  Watcher watcher(*stub_, "nobody");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
}

TEST_F(HealthTest, ManyWatchAtOnce) {
  Watcher a(*stub_, "readiness"), b(*stub_, "readiness");
  a.Next();
  b.Next();
  states_.Set("readiness", true);
  EXPECT_EQ(a.Next(), HealthCheckResponse::SERVING);
  EXPECT_EQ(b.Next(), HealthCheckResponse::SERVING);
}

}  // namespace
}  // namespace millrace::rpc
