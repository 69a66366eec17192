// However a text arrives, in whatever company, it is read as token by token.

#include "gtest/gtest.h"
#include "tests/exactness/crowd.h"
#include "tests/exactness/messages.h"
#include "tests/exactness/models.h"
#include "tests/exactness/streaming_policies.h"

namespace millrace::testing {
namespace {

using cache::KvDtype;

class CutsTest : public ::testing::TestWithParam<BackendUnderTest> {};

TEST_P(CutsTest, MessagesAndChunksDoNotMatter) {
  for (const WeightType type : {WeightType::kF32, WeightType::kQ4_1}) {
    for (const auto& [dtype, name, bytes, scaled] : cache::kKvDtypes) {
      const auto runner = NewRunner(GetParam(), RandomModel(type), dtype);
      for (const StreamingPolicy& policy :
           {Sinks(4, 28), Sinks(0, 32), Shift(32, 4, 9),
            StreamingPolicies().back()}) {
        const std::vector<int32_t> text =
            RandomText(static_cast<int>(8 * policy.cache));
        const Rows one_by_one =
            runner->Read(runner->Open(policy.policy()), text, 1);
        for (const int chunk : {5, 16, 100}) {
          EXPECT_LE(MaxDifference(ReadMessages(*runner, policy.policy(),
                                               policy.cache, text, chunk),
                                  one_by_one),
                    dtype == KvDtype::kF32 ? 1e-3 : 5e-2)
              << policy << ", " << name << ", chunks of " << chunk;
        }
      }
    }
  }
}

Crowd::Policies CrowdPolicies() {
  Crowd::Policies policies;
  for (const StreamingPolicy& policy :
       {Sinks(4, 28), Sinks(0, 20), Shift(32, 4, 9),
        StreamingPolicies().back()}) {
    policies.push_back(policy.policy());
  }
  return policies;
}

// Quantised weights have one kernel at every batch size (in `cuda` with
// --deterministic, as here), so these are the same bits on every backend. Float
// weights, in `onednn`, go to a library for large batches: there this holds
// with --deterministic only (tests/contract).
TEST_P(CutsTest, ACrowdIsEachAlone) {
  const auto runner =
      NewRunner(GetParam(), RandomModel(WeightType::kQ4_1), KvDtype::kF16);
  Crowd crowd(runner.get(), CrowdPolicies());
  crowd.ReadTogether(-1);
  crowd.ExpectEachAsAlone();
}

TEST_P(CutsTest, OneThatLeavesChangesNobody) {
  const auto runner =
      NewRunner(GetParam(), RandomModel(WeightType::kQ4_1), KvDtype::kF16);
  Crowd crowd(runner.get(), CrowdPolicies());
  crowd.ReadTogether(3);
  crowd.ExpectEachAsAlone();
}

INSTANTIATE_TEST_SUITE_P(Backends, CutsTest,
                         ::testing::ValuesIn(BackendsAsChosenAndSlow()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::testing
