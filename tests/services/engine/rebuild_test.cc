// Under a policy that computes visible tokens anew, clients hear of each token
// once, and of nothing that is computed again.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cache/policies/reprefill_policy.h"
#include "services/engine/engine.h"
#include "tests/services/engine/engine_harness.h"
#include "tests/testing/fake_model.h"

namespace millrace::engine {
namespace {

using testing::FakeOracle;

struct Case {
  int64_t window, every, pinned;
  std::shared_ptr<const cache::CachePolicy> policy() const {
    return *cache::NewReprefillPolicy({.window_tokens = window,
                                       .rebuild_every = every,
                                       .pinned_tokens = pinned},
                                      8192);
  }
};

class RebuildTest : public ::testing::TestWithParam<Case> {
 protected:
  RebuildTest() : policy_(GetParam().policy()) {}

  std::vector<int32_t> Oracle(absl::Span<const int32_t> prompt, int count) {
    FakeOracle oracle({}, policy_);
    oracle.Append(prompt);
    return oracle.DecodeGreedily(count);
  }

  const std::shared_ptr<const cache::CachePolicy> policy_;
};

TEST_P(RebuildTest, WritesWhatTheOracleSaysWhateverTheChunks) {
  for (const int prompt : {3, 40, 300}) {
    const std::vector<int32_t> text = Text(1, prompt);
    const std::vector<int32_t> expected = Oracle(text, 80);
    for (const int chunk : {1, 7, 64}) {
      EngineHarness harness({.prefill_chunk_tokens = chunk});
      Writer writer;
      harness.Do([&] {
        writer.Open(&harness.engine, policy_);
        writer.Read(text);
        writer.Write(80);
      });
      writer.WaitUntilDone();
      EXPECT_EQ(writer.written, expected) << prompt << " in " << chunk;
      harness.engine.Stop();
      EXPECT_LE(writer.sequence->peak_resident_tokens(),
                policy_->MaxResidentTokens(1));
    }
  }
}

TEST_P(RebuildTest, EachRowIsScoredOnceAsItsOwnTextSays) {
  const std::vector<int32_t> text = Text(6, 150);
  EngineHarness harness;
  Scorer scorer;
  harness.Do([&] {
    scorer.sequence = *harness.engine.Open({.policy = policy_}, &scorer);
    scorer.sequence->WantLogits(Logits::kAll);
    scorer.sequence->Append(text);
  });
  scorer.done.WaitForNotification();
  harness.engine.Stop();

  FakeOracle oracle({}, policy_);
  std::vector<float> expected;
  for (const int32_t id : text) {
    oracle.Append({&id, 1});
    const std::vector<float> row = oracle.Logits(oracle.length() - 1);
    expected.insert(expected.end(), row.begin(), row.end());
  }
  EXPECT_EQ(scorer.all, expected);
}

TEST_P(RebuildTest, ALongInputCostsNoMoreThanWhatIsVisible) {
  EngineHarness harness;
  Writer writer;
  harness.Do([&] {
    writer.Open(&harness.engine, policy_);
    writer.Read(Text(2, 3000));
    writer.Write(1);
  });
  writer.WaitUntilDone();
  harness.engine.Stop();
  int64_t rows = 0;
  for (const StepTrace& trace : harness.traces) {
    rows += trace.prefill_rows + trace.decode_rows;
  }
  EXPECT_LE(rows, policy_->MaxResidentTokens(1) + policy_->MaxDistance() + 2);
  EXPECT_EQ(writer.written, Oracle(Text(2, 3000), 1));
}

TEST_P(RebuildTest, CutsAndTurnsAndInputInAnyOrderAreExact) {
  constexpr int64_t kRollback = 20;
  EngineHarness harness({.prefill_chunk_tokens = 16});
  Writer writer;
  FakeOracle oracle({}, policy_);
  harness.Do([&] {
    writer.Open(&harness.engine, policy_, kRollback);
    writer.Read(Text(9, 100));
  });
  oracle.Append(Text(9, 100));
  for (uint64_t round = 0; round < 60; ++round) {
    const uint64_t dice = testing::Mix(round);
    const int count = 1 + static_cast<int>(dice % 30);
    writer.written.clear();
    harness.Do([&] { writer.Write(count); });
    writer.WaitUntilDone();
    ASSERT_EQ(writer.written, oracle.DecodeGreedily(count)) << round;
    harness.Do([&] {
      Sequence& sequence = *writer.sequence;
      ASSERT_EQ(sequence.length(), oracle.length());
      ASSERT_LE(sequence.EarliestCut(), sequence.length() - kRollback);
      const int64_t length = std::max<int64_t>(
          sequence.EarliestCut(),
          oracle.length() - static_cast<int64_t>(dice >> 40) % 22);
      ASSERT_TRUE(sequence.Truncate(length).ok()) << round;
      oracle.Truncate(length);
      const std::vector<int32_t> input =
          Text(round, static_cast<int64_t>((dice >> 20) % 50));
      writer.Read(input);
      oracle.Append(input);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, RebuildTest,
                         ::testing::Values(Case{30, 1, 0}, Case{30, 15, 4},
                                           Case{30, 30, 0}, Case{20, 7, 37}),
                         [](const auto& info) {
                           return absl::StrCat("Window", info.param.window,
                                               "Every", info.param.every,
                                               "Pinned", info.param.pinned);
                         });

}  // namespace
}  // namespace millrace::engine
