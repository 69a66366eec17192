#include "services/engine/sampling/adjust.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace millrace::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::IsEmpty;

RecentTokens Recent() {
  RecentTokens recent(10);
  recent.Add({3, 0, 1, 1, 2});
  return recent;
}

// The logits 2, -2, 4, 0 after adjustment; the text ends with 0 1 1 2.
std::vector<float> Adjusted(const SamplingOptions& options,
                            const std::vector<int32_t>& suppressed = {}) {
  const RecentTokens recent = Recent();
  std::vector<float> logits = {2, -2, 4, 0};
  AdjustLogits(AdjustmentsOf(options, recent, suppressed),
               absl::MakeSpan(logits));
  return logits;
}

TEST(AdjustTest, NeutralOptionsChangeNothing) {
  EXPECT_THAT(AdjustmentsOf({}, Recent(), {}), IsEmpty());
  EXPECT_THAT(Adjusted({}), ElementsAre(2, -2, 4, 0));
}

TEST(AdjustTest, RepetitionPenaltyDividesPositiveAndMultipliesNegative) {
  const SamplingOptions options{.repetition_penalty = 2,
                                .penalty_window_tokens = 4};
  EXPECT_THAT(Adjusted(options), ElementsAre(1, -4, 2, 0));
}

TEST(AdjustTest, FrequencyPenaltyCounts) {
  EXPECT_THAT(Adjusted({.frequency_penalty = 0.5f, .penalty_window_tokens = 4}),
              ElementsAre(1.5f, -3, 3.5f, 0));
}

TEST(AdjustTest, PresencePenaltyDoesNotCount) {
  EXPECT_THAT(Adjusted({.presence_penalty = 0.5f, .penalty_window_tokens = 4}),
              ElementsAre(1.5f, -2.5f, 3.5f, 0));
}

TEST(AdjustTest, PenaltiesSeeTheirWindowAlone) {
  EXPECT_THAT(Adjusted({.presence_penalty = 1, .penalty_window_tokens = 2}),
              ElementsAre(2, -3, 3, 0));
  EXPECT_THAT(Adjusted({.presence_penalty = 1, .penalty_window_tokens = 99}),
              ElementsAre(1, -3, 3, -1));
  const SamplingOptions none{.presence_penalty = 1, .penalty_window_tokens = 0};
  EXPECT_THAT(AdjustmentsOf(none, Recent(), {}), IsEmpty());
  EXPECT_THAT(Adjusted(none), ElementsAre(2, -2, 4, 0));
}

TEST(AdjustTest, BiasComesBeforePenalties) {
  // -2 + 6 is positive, so the penalty divides.
  EXPECT_THAT(Adjusted({.repetition_penalty = 2,
                        .penalty_window_tokens = 4,
                        .logit_bias = {{1, 6.0f}, {3, -1.0f}}}),
              ElementsAre(1, 2, 2, -1));
}

TEST(AdjustTest, AllTogether) {
  EXPECT_THAT(Adjusted({.repetition_penalty = 2,
                        .presence_penalty = 0.25f,
                        .frequency_penalty = 0.5f,
                        .penalty_window_tokens = 4}),
              ElementsAre(FloatEq(0.25f), FloatEq(-5.25f), FloatEq(1.25f), 0));
}

TEST(AdjustTest, StaysFinite) {
  const float huge = std::numeric_limits<float>::max();
  RecentTokens recent(2);
  recent.Add({0, 1});
  std::vector<float> logits = {huge, -huge};
  AdjustLogits(AdjustmentsOf({.repetition_penalty = 1e-30f,
                              .frequency_penalty = huge,
                              .logit_bias = {{0, huge}, {1, -huge}}},
                             recent, {}),
               absl::MakeSpan(logits));
  EXPECT_TRUE(std::isfinite(logits[0]));
  EXPECT_TRUE(std::isfinite(logits[1]));
}

TEST(AdjustTest, SuppressedIdsHaveNoProbability) {
  const float never = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(Adjusted({}, {3, 0}), ElementsAre(never, -2, 4, never));
  // Whatever else is asked of them.
  EXPECT_THAT(Adjusted({.presence_penalty = -9,
                        .penalty_window_tokens = 4,
                        .logit_bias = {{0, 50.0f}}},
                       {0}),
              ElementsAre(never, 7, 13, 0));
}

}  // namespace
}  // namespace millrace::engine
