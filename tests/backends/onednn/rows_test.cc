// Operations on rows, of every table of kernels that this machine can run.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "absl/base/casts.h"
#include "backends/onednn/activations.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/quant/half.h"
#include "gtest/gtest.h"
#include "tests/backends/onednn/random_tensor.h"

namespace millrace::backends::onednn {
namespace {

class RowsTest : public testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }
};

// One token's blocks.
struct Quantised {
  std::vector<int8_t> q;
  std::vector<float> d, s;
  std::vector<int32_t> c;
};

Quantised QuantiseRow(const Kernels& kernels, const std::vector<float>& in) {
  const int blocks = static_cast<int>(in.size()) / 32;
  Quantised out{std::vector<int8_t>(in.size()), std::vector<float>(blocks),
                std::vector<float>(blocks), std::vector<int32_t>(blocks)};
  kernels.quantise(
      in.data(), blocks, 0,
      {out.q.data(), out.d.data(), out.s.data(), out.c.data(), 1, false});
  return out;
}

TEST_P(RowsTest, QuantisesToTheNearestOf255Steps) {
  std::vector<float> in(32, 0.0f);
  in[0] = 254.0f;  // the largest: d = 2
  in[1] = 3.0f;    // 1.5 steps, a tie: to even
  in[2] = 5.0f;    // 2.5
  in[3] = -7.1f;
  const Quantised x = QuantiseRow(kernels(), in);
  EXPECT_EQ(x.d[0], 2.0f);
  EXPECT_EQ(x.q[0], 127);
  EXPECT_EQ(x.q[1], 2);
  EXPECT_EQ(x.q[2], 2);
  EXPECT_EQ(x.q[3], -4);
  EXPECT_EQ(x.s[0], 2.0f * 127);
  EXPECT_EQ(x.c[0], -128 * 127);
}

TEST_P(RowsTest, QuantisesTinyBlocksToZero) {
  for (const float tiny : {0.0f, 1e-38f, -1e-37f}) {
    const Quantised x = QuantiseRow(kernels(), std::vector<float>(32, tiny));
    EXPECT_EQ(x.d[0], 0.0f);
    EXPECT_EQ(x.s[0], 0.0f);
    EXPECT_EQ(x.q, std::vector<int8_t>(32, 0));
  }
}

TEST_P(RowsTest, QuantisesToTheSameBitsAsScalar) {
  const std::vector<float> in = RandomFloats(576, 1);
  const Quantised a = QuantiseRow(kernels(), in);
  const Quantised b = QuantiseRow(kScalarKernels, in);
  EXPECT_EQ(a.q, b.q);
  EXPECT_EQ(a.d, b.d);
  EXPECT_EQ(a.s, b.s);
  EXPECT_EQ(a.c, b.c);
}

TEST_P(RowsTest, NormalisesToMeanSquareOne) {
  for (const int n : {1, 15, 16, 63, 64, 576, 577}) {
    const std::vector<float> in = RandomFloats(n, 2);
    const std::vector<float> weight(n, 2.0f);
    std::vector<float> out(n), scalar(n);
    kernels().rms_norm(in.data(), weight.data(), n, 1e-5f, out.data());
    kScalarKernels.rms_norm(in.data(), weight.data(), n, 1e-5f, scalar.data());
    const double squares =
        std::inner_product(in.begin(), in.end(), in.begin(), 0.0);
    for (int i = 0; i < n; ++i) {
      const double expected = 2 * in[i] / std::sqrt(squares / n + 1e-5);
      EXPECT_NEAR(out[i], expected, 1e-6 * std::abs(expected));
    }
    EXPECT_EQ(out, scalar);
  }
}

TEST_P(RowsTest, GatesBySilu) {
  std::vector<float> gate = {0.0f, 1.0f, -1.0f, 20.0f, -20.0f, 200.0f, -200.0f};
  gate.resize(16, 0.5f);
  const std::vector<float> in = gate;
  const std::vector<float> up(16, 3.0f);
  std::vector<float> scalar = gate;
  kernels().silu_mul(gate.data(), up.data(), 16);
  kScalarKernels.silu_mul(scalar.data(), up.data(), 16);
  for (int i = 0; i < 16; ++i) {
    const double expected = 3 * in[i] / (1 + std::exp(-double{in[i]}));
    EXPECT_NEAR(gate[i], expected, 1e-6 * std::max(1.0, std::abs(expected)));
  }
  EXPECT_EQ(gate, scalar);
}

TEST_P(RowsTest, TurnsNeighbouringPairs) {
  const std::vector<float> in = {3, 4, 1, 0, 0, 1, 1, 1,
                                 2, 0, 0, 2, 5, 5, 1, 2};
  std::vector<float> cosines(16, 0.0f), sines(16);
  for (int i = 0; i < 16; ++i) sines[i] = i % 2 == 0 ? -1.0f : 1.0f;
  std::vector<float> out(16);
  kernels().rotate(in.data(), cosines.data(), sines.data(), 2.0f, 16,
                   out.data());
  // A quarter turn takes (x, y) to (-y, x); the scale is 2.
  EXPECT_EQ(out, (std::vector<float>{-8, 6, 0, 2, -2, 0, -2, 2, 0, 4, -4, 0,
                                     -10, 10, -4, 2}));
}

TEST_P(RowsTest, SoftmaxLooksAtTheVisiblePositionsAlone) {
  const std::pair<int, int> ranges[] = {{0, 64}, {0, 1}, {63, 64}, {15, 33}};
  for (const auto& [first, last] : ranges) {
    const std::vector<float> in = RandomFloats(kSegmentTokens, 3);
    std::vector<float> out = in, scalar = in;
    std::fill(out.begin(), out.begin() + first, NAN);
    std::fill(out.begin() + last, out.end(), NAN);
    const SeenPositions visible = {first, last};
    float max, sum, unused;
    kernels().softmax(out.data(), &visible, 1, &max, &sum);
    kScalarKernels.softmax(scalar.data(), &visible, 1, &unused, &unused);
    EXPECT_EQ(max, *std::max_element(in.begin() + first, in.begin() + last));
    double total = 0;
    for (int p = 0; p < kSegmentTokens; ++p) {
      const bool seen = p >= first && p < last;
      const double expected = seen ? std::exp(double{in[p]} - max) : 0.0;
      EXPECT_NEAR(out[p], expected, 3e-7);
      total += expected;
    }
    EXPECT_NEAR(sum, total, 1e-5);
    EXPECT_EQ(out, scalar);
  }
}

// NaNs of any payload, where they are seen.
TEST_P(RowsTest, SoftmaxDoesNotHideWhatIsNoNumber) {
  for (const uint32_t bits : {0x7fc00000u, 0x7fc00001u, 0xffc12345u}) {
    std::vector<float> scores = RandomFloats(kSegmentTokens, 3);
    scores[20] = absl::bit_cast<float>(bits);
    const SeenPositions all = {0, kSegmentTokens};
    float max, sum;
    kernels().softmax(scores.data(), &all, 1, &max, &sum);
    EXPECT_TRUE(std::isnan(scores[20])) << bits;
    EXPECT_TRUE(std::isnan(sum)) << bits;
  }
}

constexpr float kNothing = -std::numeric_limits<float>::infinity();

TEST_P(RowsTest, SoftmaxOfQueriesIsThatOfEach) {
  const std::vector<SeenPositions> seen = {{0, 64}, {7, 7}, {40, 3}, {5, 64}};
  const int n = static_cast<int>(seen.size());
  std::vector<float> together = RandomFloats(n * kSegmentTokens, 3);
  std::vector<float> alone = together;
  std::vector<float> max(n), sum(n), own_max(n), own_sum(n);
  kernels().softmax(together.data(), seen.data(), n, max.data(), sum.data());
  for (int i = 0; i < n; ++i) {
    kernels().softmax(&alone[i * kSegmentTokens], &seen[i], 1, &own_max[i],
                      &own_sum[i]);
  }
  EXPECT_EQ(together, alone);
  EXPECT_EQ(max, own_max);
  EXPECT_EQ(sum, own_sum);
  for (const int nobody : {1, 2}) {
    EXPECT_EQ(max[nobody], kNothing);
    EXPECT_EQ(sum[nobody], 0);
    EXPECT_EQ(std::count(&together[nobody * kSegmentTokens],
                         &together[(nobody + 1) * kSegmentTokens], 0.0f),
              kSegmentTokens);
  }
}

TEST_P(RowsTest, MergesPartsAtTheLargerMaximum) {
  const float later = std::log(4.0f);
  // Of three queries: both larger and smaller later, and one like the first.
  std::vector<float> out(3 * 16, 1.0f), part(3 * 16, 10.0f);
  std::vector<float> max = {0.0f, later, 0.0f}, sum = {2.0f, 2.0f, 2.0f};
  std::vector<float> part_max = {later, 0.0f, later}, part_sum(3, 3.0f);
  kernels().merge({part.data(), part_max.data(), part_sum.data()}, 3, 16,
                  {out.data(), max.data(), sum.data()});
  EXPECT_EQ(max, std::vector<float>(3, later));
  const double sums[] = {2.0 / 4 + 3, 2 + 3.0 / 4, 2.0 / 4 + 3};
  const double outs[] = {1.0 / 4 + 10, 1 + 10.0 / 4, 1.0 / 4 + 10};
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(sum[i], sums[i], 1e-6);
    for (int d = 0; d < 16; ++d) EXPECT_NEAR(out[16 * i + d], outs[i], 1e-5);
  }
}

TEST_P(RowsTest, MergingWithNothingGivesTheOtherToTheBit) {
  constexpr int kRows = 37;  // more than two vectors
  const std::vector<float> values = RandomFloats(kRows * 16, 5);
  const std::vector<float> maxima = RandomFloats(kRows, 6);
  const std::vector<float> sums(kRows, 1.5f);
  std::vector<float> out(kRows * 16, 0.0f), max(kRows, kNothing), sum(kRows, 0);
  std::vector<float> part = values, part_max = maxima, part_sum = sums;
  const AttentionPart to = {out.data(), max.data(), sum.data()};
  const AttentionPart from = {part.data(), part_max.data(), part_sum.data()};
  kernels().merge(from, kRows, 16, to);
  part_max.assign(kRows, kNothing);
  part.assign(kRows * 16, NAN);
  part_sum.assign(kRows, NAN);
  kernels().merge(from, kRows, 16, to);
  EXPECT_EQ(out, values);
  EXPECT_EQ(max, maxima);
  EXPECT_EQ(sum, sums);
}

TEST_P(RowsTest, NarrowsToHalfLikeTheScalarConversion) {
  std::vector<float> in = {0.0f,          -0.0f,    1.0f,       65504.0f,
                           65519.0f,      65520.0f, -1e6f,      6e-8f,
                           2.9e-8f,       5.96e-8f, 1.0009766f, 1.00048828125f,
                           1.00146484375f};
  in.resize(16, 0.1f);
  std::vector<uint16_t> out(16);
  kernels().to_f16(in.data(), 16, out.data());
  std::vector<float> wide(16);
  kernels().widen_f16(out.data(), 16, wide.data());
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], FloatToHalf(in[i])) << in[i];
    EXPECT_EQ(wide[i], HalfToFloat(out[i])) << in[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, RowsTest,
                         testing::ValuesIn(SupportedKernels()),
                         [](const auto& info) {
                           return std::string(info.param->name);
                         });

TEST(CpuKernelsTest, RefusesNamesThatItDoesNotKnow) {
  const absl::Status status = ChooseKernels("avx3").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("'avx3'"), std::string::npos);
  EXPECT_NE(std::string(status.message()).find("scalar"), std::string::npos);
}

TEST(CpuKernelsTest, TakesTheBestOnItsOwn) {
  EXPECT_EQ(*ChooseKernels("auto"), SupportedKernels().front());
  EXPECT_EQ(*ChooseKernels("scalar"), &kScalarKernels);
}

}  // namespace
}  // namespace millrace::backends::onednn
