#include "services/server/machine.h"

#include <gtest/gtest.h>

#include "services/server/load_meter.h"

namespace millrace::server {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kGiB = 1 << 30;

TEST(Machine, CpuMaxIsQuotaOverPeriod) {
  EXPECT_EQ(ParseCpuMax("150000 100000\n"), 1.5);
  EXPECT_EQ(ParseCpuMax("400000 100000"), 4.0);
  EXPECT_EQ(ParseCpuMax("max 100000\n"), std::nullopt);
  EXPECT_EQ(ParseCpuMax(""), std::nullopt);
  EXPECT_EQ(ParseCpuMax("100000 0"), std::nullopt);
}

TEST(Machine, KvMemoryIsWhatTheLimitLeaves) {
  // 8 GiB - 100 MiB of weights - 15 %.
  EXPECT_EQ(DefaultKvMemory(8 * kGiB, 0, 100 * kMiB),
            8 * kGiB - 100 * kMiB - 8 * kGiB / 100 * 15);
  // The reserve is at least 512 MiB.
  EXPECT_EQ(DefaultKvMemory(1 * kGiB, 0, 100 * kMiB), 412 * kMiB);
  EXPECT_EQ(DefaultKvMemory(512 * kMiB, 0, 100 * kMiB), 0);
}

TEST(Machine, KvMemoryWithoutALimitIsAQuarterOfWhatIsFreeUpToFourGiB) {
  EXPECT_EQ(DefaultKvMemory(std::nullopt, 8 * kGiB, kGiB), 2 * kGiB);
  EXPECT_EQ(DefaultKvMemory(std::nullopt, 64 * kGiB, kGiB), 4 * kGiB);
}

TEST(Machine, KnowsItself) {
  EXPECT_GE(UsableCores(), 1);
  EXPECT_GT(AvailableMemory(), kMiB);
  EXPECT_GT(ResidentBytes(), 100 * 1024);
  EXPECT_GE(OpenFds(), 3);
}

absl::Time At(double seconds) {
  return absl::UnixEpoch() + absl::Seconds(1000) + absl::Seconds(seconds);
}

TEST(LoadMeter, TellsTokensPerSecondOfTheLastTen) {
  LoadMeter meter;
  meter.Add(At(0.1), 64, 1);
  meter.Add(At(0.9), 36, 1);
  meter.Add(At(5), 0, 8);
  EXPECT_DOUBLE_EQ(meter.PerSecond(At(6)).read, 10);
  EXPECT_DOUBLE_EQ(meter.PerSecond(At(6)).written, 1);
}

TEST(LoadMeter, ForgetsWhatIsOlder) {
  LoadMeter meter;
  meter.Add(At(0), 100, 100);
  meter.Add(At(9), 0, 10);
  EXPECT_DOUBLE_EQ(meter.PerSecond(At(10)).read, 0);
  EXPECT_DOUBLE_EQ(meter.PerSecond(At(10)).written, 1);
  meter.Add(At(20), 0, 20);  // the slot of second 0 is used again
  EXPECT_DOUBLE_EQ(meter.PerSecond(At(20)).written, 2);
}

}  // namespace
}  // namespace millrace::server
