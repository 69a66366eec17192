#include "backends/quant/dequantize.h"

#include <cstdint>
#include <vector>

#include "gmock/gmock.h"

namespace millrace::backends {
namespace {

using ::testing::ElementsAre;

std::vector<float> Dequantized(WeightType type,
                               const std::vector<uint8_t>& bytes, int n) {
  std::vector<float> out(n);
  DequantizeRow(type, bytes.data(), out.data(), n);
  return out;
}

TEST(DequantizeTest, FloatsAreThemselves) {
  EXPECT_THAT(
      Dequantized(WeightType::kF32, {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}, 2),
      ElementsAre(1, -2));
  EXPECT_THAT(Dequantized(WeightType::kF16, {0x00, 0x3c, 0x00, 0xc0}, 2),
              ElementsAre(1, -2));
  EXPECT_THAT(Dequantized(WeightType::kBF16, {0x80, 0x3f, 0x00, 0xc0}, 2),
              ElementsAre(1, -2));
}

TEST(DequantizeTest, BytesOfQ8_0AreSigned) {
  // d = 0.5, then q = 0, 1, ..., 30, -128.
  std::vector<uint8_t> block = {0x00, 0x38};
  for (int i = 0; i < 31; ++i) block.push_back(i);
  block.push_back(0x80);
  const std::vector<float> w = Dequantized(WeightType::kQ8_0, block, 32);
  for (int i = 0; i < 31; ++i) EXPECT_EQ(w[i], 0.5f * i);
  EXPECT_EQ(w[31], -64);
}

TEST(DequantizeTest, NibblesOfQ4_0CountFromMinus8) {
  // d = 2; byte i holds i in its low nibble and 15 - i in its high one.
  std::vector<uint8_t> block = {0x00, 0x40};
  for (int i = 0; i < 16; ++i) block.push_back(i | (15 - i) << 4);
  const std::vector<float> w = Dequantized(WeightType::kQ4_0, block, 32);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(w[i], 2 * (i - 8));
    EXPECT_EQ(w[i + 16], 2 * (7 - i));
  }
}

TEST(DequantizeTest, NibblesOfQ4_1CountFromTheMinimum) {
  // d = 2, m = -1; as above.
  std::vector<uint8_t> block = {0x00, 0x40, 0x00, 0xbc};
  for (int i = 0; i < 16; ++i) block.push_back(i | (15 - i) << 4);
  const std::vector<float> w = Dequantized(WeightType::kQ4_1, block, 32);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(w[i], 2 * i - 1);
    EXPECT_EQ(w[i + 16], 2 * (15 - i) - 1);
  }
}

TEST(DequantizeTest, EachBlockOfARowHasItsOwnScale) {
  std::vector<uint8_t> row = {0x00, 0x3c};  // d = 1
  row.insert(row.end(), 32, 3);
  row.insert(row.end(), {0x00, 0xb8});  // d = -0.5
  row.insert(row.end(), 32, 3);
  const std::vector<float> w = Dequantized(WeightType::kQ8_0, row, 64);
  EXPECT_EQ(w[0], 3);
  EXPECT_EQ(w[31], 3);
  EXPECT_EQ(w[32], -1.5f);
  EXPECT_EQ(w[63], -1.5f);
}

TEST(DequantizeTest, ReadsBytesAtAnyAddress) {
  std::vector<uint8_t> bytes = {0xff, 0x00, 0x3c};
  bytes.insert(bytes.end(), 32, 1);
  float w[32];
  DequantizeRow(WeightType::kQ8_0, bytes.data() + 1, w, 32);
  EXPECT_EQ(w[0], 1);
}

TEST(WeightTypeTest, SizesAreThoseOfGguf) {
  EXPECT_EQ(RowBytes(WeightType::kF32, 576), 2304);
  EXPECT_EQ(RowBytes(WeightType::kF16, 576), 1152);
  EXPECT_EQ(RowBytes(WeightType::kBF16, 576), 1152);
  EXPECT_EQ(RowBytes(WeightType::kQ8_0, 576), 18 * 34);
  EXPECT_EQ(RowBytes(WeightType::kQ4_0, 576), 18 * 18);
  EXPECT_EQ(RowBytes(WeightType::kQ4_1, 576), 18 * 20);
}

}  // namespace
}  // namespace millrace::backends
