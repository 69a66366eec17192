#include "services/server/engine_health.h"

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "services/engine/engine.h"

namespace millrace::server {
namespace {

TEST(EngineHealthTest, AnIdleEngineIsHealthy) {
  EXPECT_TRUE(EngineHealth({}, absl::ZeroDuration()).ok());
}

TEST(EngineHealthTest, AFailedStepIsTold) {
  engine::EngineStats stats;
  stats.last_step = absl::InternalError("forward: device lost");
  EXPECT_EQ(EngineHealth(stats, absl::Seconds(1)),
            absl::UnavailableError("the last step failed: forward: device "
                                   "lost"));
}

TEST(EngineHealthTest, AStepMayTakeAMinute) {
  engine::EngineStats stats;
  stats.progress_age = absl::Seconds(59);
  EXPECT_TRUE(EngineHealth(stats, absl::Seconds(1)).ok());
  stats.progress_age = absl::Seconds(60);
  EXPECT_EQ(EngineHealth(stats, absl::Seconds(1)).code(),
            absl::StatusCode::kUnavailable);
}

TEST(EngineHealthTest, OrTwentyTimesTheLongestStep) {
  engine::EngineStats stats;
  stats.progress_age = absl::Seconds(99);
  EXPECT_TRUE(EngineHealth(stats, absl::Seconds(5)).ok());
  stats.progress_age = absl::Seconds(100);
  EXPECT_FALSE(EngineHealth(stats, absl::Seconds(5)).ok());
}

}  // namespace
}  // namespace millrace::server
