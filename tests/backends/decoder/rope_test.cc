#include "backends/decoder/rope.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"

namespace millrace::backends {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

struct Angles {
  std::vector<float> cosines, sines;
};

Angles At(const Rope& rope, int64_t position) {
  Angles angles{std::vector<float>(rope.num_pairs()),
                std::vector<float>(rope.num_pairs())};
  rope.Angles(position, absl::MakeSpan(angles.cosines),
              absl::MakeSpan(angles.sines));
  return angles;
}

// Of head (1, 0, 1, 0, ...) turned to both positions: sum of cos(difference).
double Score(const Rope& rope, int64_t query, int64_t key) {
  const Angles q = At(rope, query), k = At(rope, key);
  double score = 0;
  for (int i = 0; i < rope.num_pairs(); ++i) {
    score +=
        double{q.cosines[i]} * k.cosines[i] + double{q.sines[i]} * k.sines[i];
  }
  return score;
}

TEST(RopeTest, PositionZeroTurnsNothing) {
  const Angles angles = At(Rope(4, 10000), 0);
  EXPECT_THAT(angles.cosines, ElementsAre(1, 1));
  EXPECT_THAT(angles.sines, ElementsAre(0, 0));
}

TEST(RopeTest, PairsTurnByPowersOfTheBase) {
  // Pair 0 by 1 radian a position, pair 1 by 10000^(-2/4) = 0.01.
  const Angles angles = At(Rope(4, 10000), 3);
  EXPECT_THAT(angles.cosines, ElementsAre(FloatNear(std::cos(3.0), 1e-7),
                                          FloatNear(std::cos(0.03), 1e-7)));
  EXPECT_THAT(angles.sines, ElementsAre(FloatNear(std::sin(3.0), 1e-7),
                                        FloatNear(std::sin(0.03), 1e-7)));
}

TEST(RopeTest, RotatesNeighbouringValues) {
  std::vector<float> head = {1, 2, 3, 4};
  Rotate({0, -1}, {1, 0}, absl::MakeSpan(head));  // a quarter, half a turn
  EXPECT_THAT(head, ElementsAre(-2, 1, -3, -4));
}

TEST(RopeTest, AScoreDependsOnTheDistanceAlone) {
  const Rope rope(64, 100000);
  for (const int64_t distance : {0, 1, 63, 1024, 8191}) {
    const double at_the_start = Score(rope, distance, 0);
    for (const int64_t key :
         {int64_t{1'000'003}, int64_t{4'194'305}, (int64_t{1} << 32) + 5,
          (int64_t{1} << 40) + 1, (int64_t{1} << 62) + 12345}) {
      EXPECT_NEAR(Score(rope, key + distance, key), at_the_start, 1e-5)
          << "distance " << distance << " at " << key;
    }
  }
}

TEST(RopeTest, AnglesAreThoseOfLongArithmetic) {
  const Rope rope(64, 100000);
  const long double pi = acosl(-1.0L);
  for (const int64_t position : {int64_t{8191}, int64_t{1'000'003}}) {
    const Angles angles = At(rope, position);
    for (int i = 0; i < 32; ++i) {
      const long double angle =
          fmodl(position * powl(100000.0L, -2.0L * i / 64), 2 * pi);
      EXPECT_NEAR(angles.cosines[i], cosl(angle), 2e-7L);
      EXPECT_NEAR(angles.sines[i], sinl(angle), 2e-7L);
    }
  }
}

TEST(RopeTest, ABaseBelowOneTurnsMoreThanOnce) {
  // Pair 1 turns by 0.01^(-1/2) = 10 radians a position.
  EXPECT_NEAR(At(Rope(4, 0.01), 1).cosines[1], std::cos(10.0), 1e-6);
}

}  // namespace
}  // namespace millrace::backends
