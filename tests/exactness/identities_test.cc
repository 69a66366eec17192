// Policies that must agree with one another.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "tests/exactness/models.h"
#include "tests/exactness/scored_policies.h"
#include "tests/exactness/streaming_policies.h"

namespace millrace::testing {
namespace {

using cache::KvDtype;

constexpr double kGate = 1e-4;

class IdentityTest : public ::testing::TestWithParam<BackendUnderTest> {
 protected:
  Rows Read(const std::string& policy, int tokens) {
    return Read(NamedPolicy(policy), tokens);
  }
  Rows Read(const ScoredDefinition& definition, int tokens) {
    return Read(NewScoredPolicy(definition), tokens);
  }
  Rows Read(std::shared_ptr<const cache::CachePolicy> policy, int tokens) {
    const auto runner =
        NewRunner(GetParam(), RandomModel(WeightType::kF32), KvDtype::kF32);
    const cache::SequenceId id = runner->Open(std::move(policy));
    runner->manager().SetInputEnd(id, tokens);
    return runner->Read(id, RandomText(tokens), 29);
  }
};

TEST_P(IdentityTest, SinksAreFullUntilTheCacheIsFull) {
  const char* const sinks = "sinks:sink_tokens=4,window_tokens=60";
  // S + R + 1 = 65 tokens; the 66th loses one.
  EXPECT_LE(MaxDifference(Read(sinks, 65), Read("full", 65)), kGate);
  EXPECT_GE(MaxDifference(Read(sinks, 66), Read("full", 66)), 10 * kGate);
}

TEST_P(IdentityTest, NoSinksAreAWindow) {
  const Rows window = Read("window:window_tokens=40", 200);
  EXPECT_LE(
      MaxDifference(Read("sinks:sink_tokens=0,window_tokens=40", 200), window),
      kGate);
  EXPECT_GE(
      MaxDifference(Read("sinks:sink_tokens=1,window_tokens=40", 200), window),
      10 * kGate);
}

TEST_P(IdentityTest, AShiftByOneIsSinksAndAWindow) {
  const Rows sinks = Read("sinks:sink_tokens=4,window_tokens=35", 200);
  EXPECT_LE(
      MaxDifference(Read("shift:context_tokens=40,n_keep=4,n_discard=1", 200),
                    sinks),
      kGate);
  EXPECT_GE(
      MaxDifference(Read("shift:context_tokens=40,n_keep=4,n_discard=2", 200),
                    sinks),
      10 * kGate);
}

TEST_P(IdentityTest, APinnedPrefixIsSoManySinks) {
  EXPECT_LE(MaxDifference(
                Read("sinks:sink_tokens=4,window_tokens=40,pin_tokens=17", 200),
                Read("sinks:sink_tokens=17,window_tokens=40", 200)),
            kGate);
}

// In one layer nothing remembers what has left: the last row of a long text is
// that of the kept tokens alone, read anew from position 0.
TEST_P(IdentityTest, OneLayerSeesTheKeptTokensRenumbered) {
  const auto file = OpenTinyLlama({.num_layers = 1});
  const auto last_row = [&](const char* policy,
                            const std::vector<int32_t>& text) {
    const auto runner = NewRunner(GetParam(), *file, KvDtype::kF32);
    return Rows{
        runner->Read(runner->Open(NamedPolicy(policy)), text, 29).back()};
  };
  const std::vector<int32_t> text = RandomText(300);
  std::vector<int32_t> kept(text.begin(), text.begin() + 4);
  kept.insert(kept.end(), text.end() - 31, text.end());
  const Rows streamed = last_row("sinks:sink_tokens=4,window_tokens=30", text);
  EXPECT_LE(MaxDifference(streamed, last_row("full", kept)), kGate);
  kept.erase(kept.begin());
  EXPECT_GE(MaxDifference(streamed, last_row("full", kept)), 10 * kGate);
}

// So nothing needs computing anew either.
TEST_P(IdentityTest, OneLayerRecomputedIsAWindow) {
  const auto file = OpenTinyLlama({.num_layers = 1});
  const auto read = [&](const char* policy) {
    const auto runner = NewRunner(GetParam(), *file, KvDtype::kF32);
    return runner->Read(runner->Open(NamedPolicy(policy)), RandomText(120), 29);
  };
  const Rows window = read("window:window_tokens=30");
  EXPECT_LE(
      MaxDifference(read("reprefill:window_tokens=30,rebuild_every=1"), window),
      kGate);
  EXPECT_GE(
      MaxDifference(read("reprefill:window_tokens=30,rebuild_every=2"), window),
      10 * kGate);
}

// In more layers they do: what left is still in what was computed from it.
TEST_P(IdentityTest, MoreLayersRememberWhatHasLeft) {
  const Rows streamed = Read("sinks:sink_tokens=4,window_tokens=30", 300);
  const std::vector<int32_t> text = RandomText(300);
  std::vector<int32_t> kept(text.begin(), text.begin() + 4);
  kept.insert(kept.end(), text.end() - 31, text.end());
  const auto runner =
      NewRunner(GetParam(), RandomModel(WeightType::kF32), KvDtype::kF32);
  const Rows anew = runner->Read(runner->Open(NamedPolicy("full")), kept, 29);
  EXPECT_GE(MaxDifference({streamed.back()}, Rows{anew.back()}), 10 * kGate);
}

class ScoredIdentityTest : public IdentityTest {};

// Nothing is left to choose: the newest stay.
TEST_P(ScoredIdentityTest, HeavyHittersWithoutRoomForThemAreSinksAndAWindow) {
  ScoredDefinition h2o{.choice = ScoredDefinition::Choice::kH2o,
                       .budget = 40,
                       .stride = 1,
                       .kept = 4,
                       .recent = 36};
  const Rows sinks = Read("sinks:sink_tokens=4,window_tokens=36", 320);
  for (const double decay : {1.0, 0.9}) {
    for (const bool by_layer : {false, true}) {
      h2o.decay = decay;
      h2o.by_layer = by_layer;
      EXPECT_LE(MaxDifference(Read(h2o, 320), sinks), kGate);
    }
  }
  h2o.recent = 35;
  EXPECT_GE(MaxDifference(Read(h2o, 320), sinks), 10 * kGate);
}

TEST_P(ScoredIdentityTest, ABudgetForTheWholeTextIsFull) {
  using enum ScoredDefinition::Choice;
  const Rows full = Read("full", 99);
  for (const auto choice : {kTova, kH2o, kSnapkv}) {
    // 99 tokens with three more to come: what would be dropped is not missed.
    ScoredDefinition all{
        .choice = choice, .budget = 99, .stride = 3, .recent = 2};
    EXPECT_LE(MaxDifference(Read(all, 99), full), kGate);
    all.budget = 20;
    EXPECT_GE(MaxDifference(Read(all, 99), full), 10 * kGate);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ScoredIdentityTest,
                         ::testing::ValuesIn(BackendsWithScores()),
                         [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(Backends, IdentityTest,
                         ::testing::ValuesIn(BackendsAsChosenAndSlow()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::testing
