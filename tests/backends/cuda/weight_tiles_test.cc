// Where weights lie on the device: every place of a tile once.

#include "backends/cuda/kernels/weight_tiles.h"

#include <map>
#include <set>
#include <utility>

#include "gtest/gtest.h"

namespace millrace::backends::cuda {
namespace {

TEST(WeightTilesTest, EveryWeightHasAPlaceOfItsOwn) {
  for (const WeightType type :
       {WeightType::kF32, WeightType::kF16, WeightType::kBF16,
        WeightType::kQ8_0, WeightType::kQ4_0, WeightType::kQ4_1}) {
    const bool nibbles = type == WeightType::kQ4_0 || type == WeightType::kQ4_1;
    std::set<std::pair<int, bool>> places;
    for (int output = 0; output < kTileOutputs; ++output) {
      for (int input = 0; input < kTileInputs; ++input) {
        const TilePlace place = PlaceInTile(output, input);
        const int byte = TileByte(type, place);
        EXPECT_GE(byte, TileHeadBytes(type));
        EXPECT_LT(byte, TileBytes(type));
        places.insert({byte, nibbles && IsHighNibble(place)});
      }
    }
    EXPECT_EQ(places.size(), 512u) << WeightTypeName(type);
  }
}

// As the operand of a tensor core wants it: lane 4 g + t has outputs g, g + 8.
TEST(WeightTilesTest, ALaneHasTwoOutputsAndEightInputsOfEach) {
  std::map<int, std::set<int>> outputs, inputs;
  for (int output = 0; output < kTileOutputs; ++output) {
    for (int input = 0; input < kTileInputs; ++input) {
      const int lane = PlaceInTile(output, input).lane;
      outputs[lane].insert(output);
      inputs[lane].insert(input);
    }
  }
  EXPECT_EQ(outputs.size(), 32u);
  EXPECT_EQ(outputs[4 * 3 + 1], (std::set<int>{3, 11}));
  EXPECT_EQ(inputs[4 * 3 + 1], (std::set<int>{2, 3, 10, 11, 18, 19, 26, 27}));
}

TEST(WeightTilesTest, QuantisedWeightsStayQuantised) {
  const auto bits = [](WeightType type) { return TileBytes(type) * 8 / 512.0; };
  EXPECT_EQ(bits(WeightType::kQ4_0), 4.5);
  EXPECT_EQ(bits(WeightType::kQ4_1), 5);
  EXPECT_EQ(bits(WeightType::kQ8_0), 8.5);
  EXPECT_EQ(bits(WeightType::kBF16), 16);
}

}  // namespace
}  // namespace millrace::backends::cuda
