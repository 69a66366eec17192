#include "backends/quant/half.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace millrace::backends {
namespace {

// What the bits of a 16-bit number mean, by the definition of the format.
double Meaning(uint16_t bits, int fraction_bits, int bias) {
  const int exponent_mask = (1 << (15 - fraction_bits)) - 1;
  const int exponent = (bits >> fraction_bits) & exponent_mask;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  const double part = std::ldexp(fraction, -fraction_bits);
  if (exponent == exponent_mask) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(part, 1 - bias);
  return sign * std::ldexp(1 + part, exponent - bias);
}

TEST(HalfTest, WidensAll65536ValuesExactlyAndBack) {
  for (int i = 0; i < 65536; ++i) {
    const double meaning = Meaning(i, 10, 15);
    const float value = HalfToFloat(i);
    if (std::isnan(meaning)) {
      EXPECT_TRUE(std::isnan(value)) << i;
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value)))) << i;
      continue;
    }
    ASSERT_EQ(value, meaning) << i;
    ASSERT_EQ(std::signbit(value), (i & 0x8000) != 0) << i;
    ASSERT_EQ(FloatToHalf(value), i);
  }
}

TEST(HalfTest, NarrowsToTheNearestAndTiesToEven) {
  // Between each finite half and the next: a little below the middle, the
  // middle, a little above it.
  for (int i = 0; i < 0x7bff; ++i) {
    const float low = HalfToFloat(i), high = HalfToFloat(i + 1);
    const float middle = (low + high) / 2;  // exact: floats have 13 bits more
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, low)), i);
    ASSERT_EQ(FloatToHalf(middle), i % 2 == 0 ? i : i + 1);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, high)), i + 1);
    ASSERT_EQ(FloatToHalf(-middle), 0x8000 | (i % 2 == 0 ? i : i + 1));
  }
}

TEST(HalfTest, OverflowsToInfinityAndUnderflowsToZero) {
  EXPECT_EQ(FloatToHalf(65504), 0x7bff);  // the largest
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520), 0x7c00);
  EXPECT_EQ(FloatToHalf(-1e30f), 0xfc00);
  EXPECT_EQ(FloatToHalf(0x1p-24f), 0x0001);  // the smallest
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0x0000);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::denorm_min()), 0x0000);
}

TEST(HalfTest, KnowsTheNumbersOfTextbooks) {
  EXPECT_EQ(FloatToHalf(1), 0x3c00);
  EXPECT_EQ(FloatToHalf(-2), 0xc000);
  EXPECT_EQ(FloatToHalf(1.0f / 3), 0x3555);
  EXPECT_EQ(FloatToBfloat16(1), 0x3f80);
  EXPECT_EQ(FloatToBfloat16(3.14159265f), 0x4049);
}

TEST(Bfloat16Test, WidensAll65536ValuesExactlyAndBack) {
  for (int i = 0; i < 65536; ++i) {
    const double meaning = Meaning(i, 7, 127);
    const float value = Bfloat16ToFloat(i);
    if (std::isnan(meaning)) {
      EXPECT_TRUE(std::isnan(value)) << i;
      EXPECT_TRUE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(value)))) << i;
      continue;
    }
    ASSERT_EQ(value, meaning) << i;
    ASSERT_EQ(FloatToBfloat16(value), i);
  }
}

TEST(Bfloat16Test, NarrowsToTheNearestAndTiesToEven) {
  EXPECT_EQ(FloatToBfloat16(0x1.01p0f), 0x3f80);        // tie, down to even
  EXPECT_EQ(FloatToBfloat16(0x1.0102p0f), 0x3f81);      // above it
  EXPECT_EQ(FloatToBfloat16(0x1.03p0f), 0x3f82);        // tie, up to even
  EXPECT_EQ(FloatToBfloat16(0x1.02fep0f), 0x3f81);      // below it
  EXPECT_EQ(FloatToBfloat16(0x1.fffffep127f), 0x7f80);  // to infinity
}

}  // namespace
}  // namespace millrace::backends
