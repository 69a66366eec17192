#include "services/engine/sampling/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace millrace::engine {
namespace {

// The known answers that the authors publish (Random123, kat_vectors).
TEST(PhiloxTest, GivesThePublishedNumbers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                   {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, EveryPartOfTheKeyCounts) {
  const uint64_t high = uint64_t{1} << 40;
  const std::set<double> numbers = {
      UniformOf(1, 2, 3),        UniformOf(2, 2, 3),
      UniformOf(1, 3, 3),        UniformOf(1, 2, 4),
      UniformOf(1 + high, 2, 3), UniformOf(1, 2 + high, 3),
      UniformOf(1, 2, 3 + high), UniformOf(3, 2, 1)};
  EXPECT_EQ(numbers.size(), 8u);
  EXPECT_EQ(UniformOf(1, 2, 3), UniformOf(1, 2, 3));
}

TEST(PhiloxTest, NumbersAreSpreadEvenlyFromZeroToOne) {
  int buckets[10] = {};
  for (uint64_t index = 0; index < 10'000; ++index) {
    const double u = UniformOf(42, 1, index);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++buckets[static_cast<int>(u * 10)];
  }
  // 1,000 each; four standard deviations are 120.
  for (const int count : buckets) EXPECT_NEAR(count, 1000, 120);
}

}  // namespace
}  // namespace millrace::engine
