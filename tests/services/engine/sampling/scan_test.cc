#include "services/engine/sampling/scan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace millrace::engine {
namespace {

TEST(ScanTest, FindsNonfiniteLogitsWhereverTheyAre) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {NAN, -NAN, infinity, -infinity}) {
    for (const size_t at : {0, 1, 500, 998, 999}) {
      std::vector<float> logits(1000, std::numeric_limits<float>::lowest());
      EXPECT_FALSE(HasNonfinite(logits));
      logits[at] = bad;
      EXPECT_TRUE(HasNonfinite(logits)) << bad << " at " << at;
    }
  }
}

TEST(ScanTest, FindsTheLargestWhereverItIs) {
  for (size_t size = 1; size < 70; ++size) {
    for (size_t at = 0; at < size; ++at) {
      std::vector<float> logits(size, -7.0f);
      logits[at] = -6.5f;
      EXPECT_EQ(Largest(logits), -6.5f) << at << " of " << size;
    }
  }
  const float never = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(Largest({never, never}), never);
}

TEST(ScanTest, FindsTheFirstOfEqualLogitsWhereverItIs) {
  for (const size_t size : {1, 255, 256, 257, 600}) {
    for (size_t at = 0; at < size; ++at) {
      std::vector<float> logits(size, -7.0f);
      logits[at] = logits.back() = 0.0f;
      EXPECT_EQ(IndexOf(logits, -0.0f), at) << at << " of " << size;
    }
  }
}

TEST(ScanTest, SumsWeights) {
  const float never = -std::numeric_limits<float>::infinity();
  EXPECT_NEAR(SumOfWeights({2, 1, never}, 2, 0.5f), 1 + std::exp(-2.0), 1e-6);
  for (const size_t size : {1, 17, 255, 256, 257, 5000}) {
    std::vector<float> logits(size);
    double expected = 0;
    for (size_t i = 0; i < size; ++i) {
      logits[i] = 5.0f - 0.0173f * static_cast<float>(i);
      expected += std::exp((logits[i] - 5.0) / 0.7f);
    }
    EXPECT_NEAR(SumOfWeights(logits, 5, 0.7f) / expected, 1, 1e-6) << size;
  }
}

TEST(ScanTest, WeightsAreExactToTheEndOfFloat) {
  for (float x = 0; x > -80; x -= 0.0371f) {
    const double weight = SumOfWeights({0, x}, 0, 1) - 1;
    // A double holds 1 + weight to 2e-16.
    EXPECT_NEAR(weight, std::exp(static_cast<double>(x)),
                1e-6 * std::exp(static_cast<double>(x)) + 4e-16);
  }
}

}  // namespace
}  // namespace millrace::engine
