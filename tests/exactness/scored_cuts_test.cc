// Under policies that choose by attention the stride is part of the definition,
// and nothing else: however a text arrives, in whatever company, the same
// tokens stay, and the same bits come out.

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "tests/exactness/crowd.h"
#include "tests/exactness/messages.h"
#include "tests/exactness/models.h"
#include "tests/exactness/scored_policies.h"
#include "tests/exactness/scored_stream.h"

namespace millrace::testing {
namespace {

using cache::KvDtype;
using cache::SequenceId;

class ScoredCutsTest : public ::testing::TestWithParam<BackendUnderTest> {
 protected:
  // Quantised weights have one kernel at every batch size.
  std::unique_ptr<ModelRunner> Runner(KvDtype dtype) {
    return NewRunner(GetParam(), RandomModel(WeightType::kQ4_1), dtype);
  }
  static bool IsTold(const ScoredPolicyCase& policy) {
    return policy.definition.choice == ScoredDefinition::Choice::kSnapkv;
  }
};

TEST_P(ScoredCutsTest, MessagesAndChunksGiveTheSameBits) {
  for (const KvDtype dtype : {KvDtype::kF32, KvDtype::kF16, KvDtype::kInt8}) {
    const auto runner = Runner(dtype);
    for (const ScoredPolicyCase& policy : ScoredPolicyCases()) {
      if (IsTold(policy)) continue;
      const std::vector<int32_t> text =
          RandomText(static_cast<int>(policy.tokens()));
      const SequenceId id = runner->Open(policy.policy());
      const Rows one_by_one = runner->Read(id, text, 1);
      runner->manager().Close(id);
      for (const int chunk : {5, 16, 100}) {
        EXPECT_TRUE(ReadMessages(*runner, policy.policy(),
                                 policy.definition.budget, text,
                                 chunk) == one_by_one)
            << policy << " in chunks of " << chunk << " as "
            << KvDtypeName(dtype);
      }
    }
  }
}

// Where inputs are told, they are part of the text; chunks are not.
TEST_P(ScoredCutsTest, ChunksOfAnInputGiveTheSameBits) {
  for (const KvDtype dtype : {KvDtype::kF32, KvDtype::kF16, KvDtype::kInt8}) {
    const auto runner = Runner(dtype);
    for (const ScoredPolicyCase& policy : ScoredPolicyCases()) {
      if (!IsTold(policy)) continue;
      const std::vector<int32_t> text =
          RandomText(static_cast<int>(policy.tokens()));
      const auto read = [&](int chunk) {
        const SequenceId id = runner->Open(policy.policy());
        Rows rows =
            ReadScored(*runner, id, text, policy.inputs(), chunk).logits;
        runner->manager().Close(id);
        return rows;
      };
      const Rows one_by_one = read(1);
      for (const int chunk : {3, 16, 100}) {
        EXPECT_TRUE(read(chunk) == one_by_one)
            << policy << " in chunks of " << chunk << " as "
            << KvDtypeName(dtype);
      }
    }
  }
}

// Rows up to the next cut can be taken back, and leave nothing behind.
TEST_P(ScoredCutsTest, RowsThatWereCutOffWereNeverRead) {
  const auto runner = Runner(KvDtype::kF16);
  cache::CacheManager& manager = runner->manager();
  for (const ScoredPolicyCase& policy : ScoredPolicyCases()) {
    if (IsTold(policy)) continue;
    const int64_t stride = policy.definition.stride;
    const std::vector<int32_t> text =
        RandomText(static_cast<int>(policy.tokens()));
    const SequenceId whole_id = runner->Open(policy.policy());
    const Rows whole = runner->Read(whole_id, text, 64);
    manager.Close(whole_id);
    const SequenceId id = runner->Open(policy.policy());
    RandomValues random(1);
    for (int64_t length = 0; true;) {
      const int64_t more =
          std::min<int64_t>(1 + random.Bits() % 50, std::ssize(text) - length);
      const Rows rows =
          runner->Read(id, absl::MakeConstSpan(text).subspan(length, more), 16);
      const Rows expected(whole.begin() + length,
                          whole.begin() + length + more);
      ASSERT_TRUE(rows == expected) << policy << " from " << length;
      length += more;
      if (length == std::ssize(text)) break;
      const int64_t others = 1 + random.Bits() % (stride - length % stride);
      runner->Read(id, RandomText(static_cast<int>(others), length), 16);
      const int64_t earliest = manager.EarliestCut(id);
      ASSERT_LE(earliest, length);
      EXPECT_TRUE(earliest == 0 || !manager.Truncate(id, earliest - 1).ok());
      length -= random.Bits() % (length - earliest + 1);
      ASSERT_TRUE(manager.Truncate(id, length).ok());
      length = manager.Length(id);  // or fewer, which are to be read once more
    }
    manager.Close(id);
  }
}

Crowd::Policies CrowdPolicies() {
  Crowd::Policies policies;
  for (const ScoredPolicyCase& policy : ScoredPolicyCases()) {
    if (policy.num_kv_heads == 2) policies.push_back(policy.policy());
  }
  return policies;
}

TEST_P(ScoredCutsTest, ACrowdIsEachAlone) {
  const auto runner = Runner(KvDtype::kF16);
  Crowd crowd(runner.get(), CrowdPolicies());
  crowd.ReadTogether(-1);
  crowd.ExpectEachAsAlone();
}

TEST_P(ScoredCutsTest, OneThatLeavesChangesNobody) {
  const auto runner = Runner(KvDtype::kF16);
  Crowd crowd(runner.get(), CrowdPolicies());
  crowd.ReadTogether(3);
  crowd.ExpectEachAsAlone();
}

// All of E8 that is not the contract's (tests/cache/contract): bounds, and what
// is protected, at the end of a text of 20 budgets.
TEST_P(ScoredCutsTest, ALongTextIsReadInBoundedMemory) {
  const auto runner = Runner(KvDtype::kF16);
  cache::CacheManager& manager = runner->manager();
  for (const ScoredPolicyCase& policy : ScoredPolicyCases()) {
    const ScoredDefinition& d = policy.definition;
    const SequenceId id = runner->Open(policy.policy());
    const int64_t tokens = 20 * d.budget;
    manager.SetInputEnd(id, tokens);
    runner->Read(id, RandomText(static_cast<int>(tokens)), 100);
    EXPECT_EQ(manager.PeakResidentTokens(id), d.budget + d.stride) << policy;
    const std::vector<cache::TextRange> held = manager.Resident(id);
    EXPECT_GE(held.front().end, d.kept);
    EXPECT_TRUE(d.kept == 0 || held.front().begin == 0);
    EXPECT_LE(held.back().begin, tokens - d.recent);
    EXPECT_EQ(held.back().end, tokens);
    manager.Close(id);
    EXPECT_EQ(manager.stats().used_blocks, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ScoredCutsTest,
                         ::testing::ValuesIn(BackendsWithScores()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::testing
