#include "backends/quant/finite.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace millrace::backends {
namespace {

struct Field {
  WeightType type;
  int at;  // byte within the block
};

// Every field that scales or is a value. Sixteen bits each, except F32.
constexpr Field kFields[] = {
    {WeightType::kF16, 0},  {WeightType::kBF16, 0}, {WeightType::kQ8_0, 0},
    {WeightType::kQ4_0, 0}, {WeightType::kQ4_1, 0}, {WeightType::kQ4_1, 2},
};

int64_t FirstAfterWriting(WeightType type, int64_t blocks, int64_t at,
                          const void* bits, size_t size) {
  // All other bytes are 0x3b: harmless as numbers, and as nibbles.
  std::vector<uint8_t> data(blocks * BlockBytes(type), 0x3b);
  if (size > 0) std::memcpy(&data[at], bits, size);
  return FirstNonFiniteBlock(type, data);
}

TEST(FiniteTest, FindsEverySixteenBitNumberThatIsNotFinite) {
  for (const Field& field : kFields) {
    const uint16_t exponent = field.type == WeightType::kBF16 ? 0x7f80 : 0x7c00;
    for (int bits = 0; bits < 65536; ++bits) {
      const uint16_t value = bits;
      const bool finite = (value & exponent) != exponent;
      const int64_t at = 2 * BlockBytes(field.type) + field.at;
      ASSERT_EQ(FirstAfterWriting(field.type, 3, at, &value, 2),
                finite ? -1 : 2)
          << WeightTypeName(field.type) << " " << bits;
    }
  }
}

TEST(FiniteTest, FindsFloatsThatAreNotFinite) {
  for (const uint32_t bits :
       {0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u, 0xffffffffu}) {
    EXPECT_EQ(FirstAfterWriting(WeightType::kF32, 5, 16, &bits, 4), 4);
  }
  for (const uint32_t bits : {0x7f7fffffu, 0x00000001u, 0x80000000u, 0u}) {
    EXPECT_EQ(FirstAfterWriting(WeightType::kF32, 5, 16, &bits, 4), -1);
  }
}

TEST(FiniteTest, NamesTheFirstOfManyWhereverItIs) {
  for (const int64_t bad : {0, 1, 511, 512, 513, 1023, 1024, 1999}) {
    std::vector<uint8_t> data(2000 * 34, 0x3b);
    const uint16_t infinity = 0x7c00;
    for (const int64_t block : {bad, int64_t{1999}}) {
      std::memcpy(&data[block * 34], &infinity, 2);
    }
    EXPECT_EQ(FirstNonFiniteBlock(WeightType::kQ8_0, data), bad);
  }
}

TEST(FiniteTest, QuantisedValuesMayBeAnything) {
  std::vector<uint8_t> data(20, 0xff);
  data[1] = data[3] = 0x3b;
  EXPECT_EQ(FirstNonFiniteBlock(WeightType::kQ4_1, data), -1);
}

TEST(FiniteTest, NothingIsFinite) {
  EXPECT_EQ(FirstNonFiniteBlock(WeightType::kF32, {}), -1);
}

}  // namespace
}  // namespace millrace::backends
