// Keys turned back, and probabilities added up, by every table of kernels that
// this machine can run.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <string>
#include <vector>

#include "backends/decoder/rope.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/quant/half.h"
#include "gtest/gtest.h"
#include "tests/backends/onednn/random_tensor.h"

namespace millrace::backends::onednn {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

double AngleOf(uint64_t phase) {
  return static_cast<double>(static_cast<int64_t>(phase)) *
         std::ldexp(kTurn, -64);
}

// Numbers of any size, by a recurrence.
std::vector<uint64_t> RandomBits(int n, uint64_t state) {
  std::vector<uint64_t> bits(n);
  for (uint64_t& x : bits) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = state ^ state >> 33;
  }
  return bits;
}

class RebaseTest : public ::testing::TestWithParam<const Kernels*> {};

// Keys (1, 0) come out as the cosine and minus the sine.
TEST_P(RebaseTest, SinesAndCosinesAreExactToAFloat) {
  const std::vector<float> keys = [] {
    std::vector<float> tile(16 * 16, 0);
    for (int d = 0; d < 16; d += 2) std::fill_n(&tile[16 * d], 16, 1.0f);
    return tile;
  }();
  // Steps: every eighth of a turn and its neighbours, and whatever comes.
  std::vector<uint64_t> steps;
  for (uint64_t eighth = 0; eighth < 8; ++eighth) {
    for (const int64_t near : {-(1ll << 33), -1ll, 0ll, 1ll, 1ll << 33}) {
      steps.push_back((eighth << 61) + near);
    }
  }
  for (const uint64_t bits : RandomBits(4000, 1)) steps.push_back(bits);
  for (size_t first = 0; first + 8 <= steps.size(); first += 8) {
    const std::vector<uint64_t> leads = {0,
                                         1,
                                         2,
                                         3,
                                         5,
                                         100,
                                         1023,
                                         65537,
                                         (1ull << 32) + 5,
                                         (1ull << 40) + 7,
                                         (1ull << 62) + 3,
                                         ~0ull,
                                         ~6ull,
                                         12345678901,
                                         4000001,
                                         8191};
    float out[16 * 16];
    GetParam()->rebase_f32(keys.data(), leads.data(), &steps[first], 16,
                           keys.data(), out);
    for (int i = 0; i < 8 * 16; ++i) {
      const double angle = AngleOf(leads[i % 16] * steps[first + i / 16]);
      const float* const pair = &out[i / 16 * 32 + i % 16];
      ASSERT_NEAR(pair[0], std::cos(angle), 1.5e-7) << angle;
      ASSERT_NEAR(pair[16], -std::sin(angle), 1.5e-7) << angle;
    }
  }
}

TEST_P(RebaseTest, TurnsEachTokenBackByItsOwnLead) {
  for (const int dim : {16, 48, 64, 80}) {
    const Rope rope(dim, 100000);
    const std::vector<uint64_t> leads = RandomBits(16, dim);
    const std::vector<float> numbers = RandomFloats(16 * dim, dim);
    std::vector<uint16_t> half, bfloat;
    for (const float x : numbers) {
      half.push_back(FloatToHalf(x));
      bfloat.push_back(FloatToBfloat16(x));
    }
    const auto expect = [&](RebaseKeys rebase, const void* tile, auto number) {
      std::vector<float> out(16 * dim);
      rebase(tile, leads.data(), rope.steps().data(), dim, tile, out.data());
      for (int i = 0; i < 8 * dim; ++i) {
        const double angle = AngleOf(leads[i % 16] * rope.steps()[i / 16]);
        const int at = i / 16 * 32 + i % 16;
        const double x = number(at), y = number(at + 16);
        ASSERT_NEAR(out[at], x * std::cos(angle) + y * std::sin(angle), 2e-6);
        ASSERT_NEAR(out[at + 16], y * std::cos(angle) - x * std::sin(angle),
                    2e-6);
      }
    };
    expect(GetParam()->rebase_f32, numbers.data(),
           [&](int i) { return numbers[i]; });
    expect(GetParam()->rebase_f16, half.data(),
           [&](int i) { return HalfToFloat(half[i]); });
    expect(GetParam()->rebase_bf16, bfloat.data(),
           [&](int i) { return Bfloat16ToFloat(bfloat[i]); });
  }
}

TEST_P(RebaseTest, GivesTheBitsOfScalarAndLeavesALeadOfZeroAlone) {
  const Rope rope(64, 10000);
  const std::vector<float> keys = RandomFloats(16 * 64, 1);
  std::vector<uint64_t> leads = RandomBits(16, 2);
  leads[3] = 0;
  std::vector<float> expected(keys.size()), out(keys.size());
  kScalarKernels.rebase_f32(keys.data(), leads.data(), rope.steps().data(), 64,
                            keys.data(), expected.data());
  GetParam()->rebase_f32(keys.data(), leads.data(), rope.steps().data(), 64,
                         keys.data(), out.data());
  EXPECT_EQ(out, expected);
  for (int d = 0; d < 64; ++d) {
    EXPECT_EQ(out[16 * d + 3], keys[16 * d + 3]) << d;
    EXPECT_NE(out[16 * d + 4], keys[16 * d + 4]) << d;
  }
}

TEST_P(RebaseTest, AddsProbabilitiesInTheOrderOfHeads) {
  for (const int heads : {1, 3, 9}) {
    for (const int n : {1, 15, 16, 17, 33, 64}) {
      const std::vector<float> given = RandomFloats(heads * kSegmentTokens, 1);
      const std::vector<float> factors = RandomFloats(heads, 2);
      const std::vector<float> before = RandomFloats(kSegmentTokens, 3);
      std::vector<float> sums = before;
      GetParam()->add_probabilities(given.data(), factors.data(), heads, 0.3f,
                                    n, sums.data());
      for (int i = 0; i < kSegmentTokens; ++i) {
        volatile float sum = 0;  // rounded after each product and each sum
        for (int h = 0; h < heads; ++h) {
          volatile float product = given[kSegmentTokens * h + i] * factors[h];
          sum = sum + product;
        }
        volatile float weighed = sum * 0.3f;
        const float expected = i < n ? before[i] + weighed : before[i];
        ASSERT_EQ(sums[i], expected) << heads << " heads, " << i << " of " << n;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, RebaseTest,
                         ::testing::ValuesIn(SupportedKernels()),
                         [](const auto& info) {
                           return std::string(info.param->name);
                         });

}  // namespace
}  // namespace millrace::backends::onednn
