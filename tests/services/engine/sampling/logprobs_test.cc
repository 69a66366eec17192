#include "services/engine/sampling/logprobs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace millrace::engine {
namespace {

const std::vector<float>& Logits() {
  static const auto* const logits = new std::vector<float>{
      std::log(1.0f), std::log(4.0f), std::log(2.0f), std::log(3.0f)};
  return *logits;
}

TEST(LogprobsTest, SumsProbabilities) {
  EXPECT_NEAR(LogSumExp(Logits()), std::log(10.0), 1e-6);
  EXPECT_NEAR(LogSumExp({1000, 1000}), 1000 + std::log(2.0), 1e-6);
  EXPECT_NEAR(LogSumExp({-1000, -1000}), -1000 + std::log(2.0), 1e-6);
}

TEST(LogprobsTest, NamesTheTokenAndTheLikeliest) {
  const TokenLogprobs result = LogprobsOf(Logits(), 0, 2);
  EXPECT_EQ(result.token_id, 0);
  EXPECT_NEAR(result.logprob, std::log(0.1), 1e-6);
  ASSERT_EQ(result.top.size(), 2u);
  EXPECT_EQ(result.top[0].first, 1);
  EXPECT_NEAR(result.top[0].second, std::log(0.4), 1e-6);
  EXPECT_EQ(result.top[1].first, 3);
  EXPECT_NEAR(result.top[1].second, std::log(0.3), 1e-6);
}

TEST(LogprobsTest, GivesTheTokenAloneWhereNoOthersAreWanted) {
  EXPECT_TRUE(LogprobsOf(Logits(), 2, 0).top.empty());
}

TEST(LogprobsTest, GivesNoMoreThanThereAre) {
  EXPECT_EQ(LogprobsOf(Logits(), 2, 20).top.size(), 4u);
}

TEST(LogprobsTest, PutsTheLowerIdFirstWhereEqual) {
  const TokenLogprobs result = LogprobsOf({1, 2, 2, 2, 1}, 0, 2);
  EXPECT_EQ(result.top[0].first, 1);
  EXPECT_EQ(result.top[1].first, 2);
}

}  // namespace
}  // namespace millrace::engine
