#include "backends/quant/scaled_int8.h"

#include <cmath>
#include <random>
#include <vector>

#include "gmock/gmock.h"

namespace millrace::backends {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

struct Scaled {
  explicit Scaled(std::vector<float> numbers) : q(numbers.size()) {
    scale = RoundToScaledInt8(numbers, q.data());
  }

  std::vector<float> Numbers() const {
    std::vector<float> numbers;
    for (const int8_t i : q) numbers.push_back(scale * i);
    return numbers;
  }

  float scale;
  std::vector<int8_t> q;
};

TEST(ScaledInt8Test, TheLargestNumberIs127Scales) {
  const Scaled one({127, -64, 3});
  EXPECT_EQ(one.scale, 1);
  EXPECT_THAT(one.q, ElementsAre(127, -64, 3));
  const Scaled quarter({0.75f, -31.75f});
  EXPECT_EQ(quarter.scale, 0.25f);
  EXPECT_THAT(quarter.q, ElementsAre(3, -127));
}

TEST(ScaledInt8Test, RoundsToTheNearestAndTiesToEven) {
  EXPECT_THAT(Scaled({127, 0.5f, 1.5f, -2.5f, 2.51f, 0.49f}).q,
              ElementsAre(127, 0, 2, -2, 3, 0));
}

TEST(ScaledInt8Test, AZeroVectorHasScale0) {
  const Scaled zero({0, -0.0f, 0x1p-101f});
  EXPECT_EQ(zero.scale, 0);
  EXPECT_THAT(zero.q, Each(0));
}

TEST(ScaledInt8Test, WhatIsNotFiniteIsNanThroughout) {
  for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
    const Scaled scaled({1, bad, 3});
    EXPECT_TRUE(std::isnan(scaled.scale));
    EXPECT_THAT(scaled.q, Each(0));
  }
}

// A scale of all 24 bits would change in one of 128 vectors.
TEST(ScaledInt8Test, RoundingAgainChangesNothing) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 1);
  for (int i = 0; i < 10'000; ++i) {
    std::vector<float> numbers(16);
    for (float& x : numbers) x = normal(random);
    const Scaled once(numbers), twice(once.Numbers());
    ASSERT_EQ(twice.scale, once.scale);
    ASSERT_EQ(twice.q, once.q);
    for (size_t k = 0; k < numbers.size(); ++k) {
      ASSERT_LE(std::abs(once.Numbers()[k] - numbers[k]), 0.5001f * once.scale);
    }
  }
}

TEST(ScaledInt8Test, KeepsTheEndsOfTheRange) {
  EXPECT_THAT(Scaled({0x1p-100f, 0}).q, ElementsAre(127, 0));
  const Scaled largest({-0x1.fffffep127f, 0x1p127f});
  EXPECT_THAT(largest.q, ElementsAre(-127, 64));
  EXPECT_TRUE(std::isfinite(largest.scale));
}

}  // namespace
}  // namespace millrace::backends
