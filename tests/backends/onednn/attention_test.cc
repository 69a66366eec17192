// Attention over one segment, of every table of kernels that this machine can
// run and every dtype of keys and values, against sums in double precision.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/casts.h"
#include "absl/strings/str_cat.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/onednn/kv_storage.h"
#include "backends/quant/half.h"
#include "backends/quant/scaled_int8.h"
#include "gtest/gtest.h"
#include "tests/backends/onednn/random_tensor.h"
#include "tests/testing/rounded.h"

namespace millrace::backends::onednn {
namespace {

using cache::KvDtype;

constexpr int kHeadDims[] = {16, 48, 64, 80};

// Four tiles as a storage keeps them, and the numbers that they mean: of keys
// [tile][head_dim][16], of values [tile][16][head_dim].
struct Tiles {
  Tiles(int head_dim, KvDtype dtype, bool keys, uint32_t seed)
      : numbers(RandomFloats(kSegmentTokens * head_dim, seed)) {
    const int64_t size = cache::BytesPerValue(dtype) * 16 * head_dim;
    const int64_t tile_size = size + 16 * cache::BytesPerScale(dtype);
    stored.resize(kSegmentTiles * tile_size);
    for (int p = 0; p < kSegmentTokens; ++p) {
      uint8_t* const tile = &stored[p / 16 * tile_size];
      std::vector<float> vector(head_dim);
      const auto index = [&](int d) {
        return keys ? d * 16 + p % 16 : p % 16 * head_dim + d;
      };
      float* const first = &numbers[p / 16 * 16 * head_dim];
      for (int d = 0; d < head_dim; ++d) vector[d] = first[index(d)];
      std::vector<int8_t> q(head_dim);
      if (dtype == KvDtype::kInt8) {
        const float scale = RoundToScaledInt8(vector, q.data());
        std::memcpy(tile + size + 4 * (p % 16), &scale, 4);
        scales.push_back(scale);
      }
      testing::Round(absl::MakeSpan(vector), dtype);
      for (int d = 0; d < head_dim; ++d) {
        first[index(d)] = vector[d];
        Put(vector[d], q[d], dtype,
            tile + cache::BytesPerValue(dtype) * index(d));
      }
    }
    for (int j = 0; j < kSegmentTiles; ++j) tiles[j] = &stored[j * tile_size];
  }

  static void Put(float x, int8_t q, KvDtype dtype, uint8_t* to) {
    const uint16_t half = FloatToHalf(x), bfloat16 = FloatToBfloat16(x);
    switch (dtype) {
      case KvDtype::kF32:
        std::memcpy(to, &x, 4);
        return;
      case KvDtype::kF16:
        std::memcpy(to, &half, 2);
        return;
      case KvDtype::kBF16:
        std::memcpy(to, &bfloat16, 2);
        return;
      case KvDtype::kInt8:
        std::memcpy(to, &q, 1);
        return;
    }
  }

  std::vector<float> numbers;
  std::vector<float> scales;  // of 8 bits
  std::vector<uint8_t> stored;
  const void* tiles[kSegmentTiles];
};

class SegmentTest
    : public ::testing::TestWithParam<std::tuple<const Kernels*, KvDtype>> {
 protected:
  KvDtype dtype() const { return std::get<1>(GetParam()); }
  const Kernels& table() const { return *std::get<0>(GetParam()); }
  KvKernels kernels() const { return KvKernelsFor(table(), dtype()); }
};

// Queries as the kernels take them, and what they mean to keys of a dtype.
struct Queries {
  Queries(const Kernels& kernels, KvDtype dtype, int n, int dim)
      : floats(RandomFloats(n * dim, 2)), rounded(n * dim), scales(n) {
    for (int i = 0; i < n; ++i) {
      scales[i] = kernels.round_query(&floats[i * dim], dim, &rounded[i * dim]);
    }
    for (int i = 0; i < n * dim; ++i) {
      numbers.push_back(dtype == KvDtype::kInt8
                            ? double{scales[i / dim]} * rounded[i]
                            : double{floats[i]});
    }
  }

  AttentionQueries all() const {
    return {floats.data(), rounded.data(), scales.data(),
            static_cast<int>(scales.size())};
  }

  std::vector<float> floats;
  std::vector<int16_t> rounded;
  std::vector<float> scales;
  std::vector<double> numbers;
};

TEST_P(SegmentTest, ScoresAreProductsOfQueriesAndKeysOfTheTilesAskedFor) {
  const std::pair<int, int> ranges[] = {{0, 4}, {0, 1}, {1, 4}, {2, 4}};
  for (const int dim : kHeadDims) {
    for (int n = 1; n <= 7; ++n) {
      const Tiles keys(dim, dtype(), /*keys=*/true, 1);
      const Queries queries(table(), dtype(), n, dim);
      for (const auto& [begin, end] : ranges) {
        std::vector<float> scores(n * kSegmentTokens, 77.0f);
        kernels().scores(queries.all(), dim, keys.tiles, begin, end, nullptr,
                         scores.data());
        for (int i = 0; i < n * kSegmentTokens; ++i) {
          const int query = i / kSegmentTokens, p = i % kSegmentTokens;
          const bool asked = begin <= p / 16 && p / 16 < end;
          double expected = asked ? 0 : 77;
          for (int d = 0; asked && d < dim; ++d) {
            expected += queries.numbers[query * dim + d] *
                        keys.numbers[p / 16 * 16 * dim + d * 16 + p % 16];
          }
          ASSERT_NEAR(scores[i], expected, 1e-4)
              << "position " << p << " of query " << query << ", dim " << dim;
        }
      }
    }
  }
}

// Probabilities as they are multiplied by values of a dtype: by those of 8 bits
// with the value's scale, in steps of the largest over 32,767.
struct Meant {
  Meant(const float* weights, const Tiles& values, int first, int last)
      : weights(weights, weights + kSegmentTokens) {
    if (values.scales.empty()) return;
    double largest = 0;
    for (int p = first; p < last; ++p) {
      largest =
          std::max(largest, std::abs(double{weights[p]} * values.scales[p]));
    }
    const double step = largest / 32767;
    for (int p = first; p < last; ++p) {
      const double scale = values.scales[p];
      this->weights[p] =
          std::nearbyint(weights[p] * scale / step) * step / scale;
    }
    tolerance += 127 * step;  // a tie that floats see otherwise
  }

  std::vector<double> weights;
  double tolerance = 1e-4;
};

TEST_P(SegmentTest, ValuesAreWeighedWhereTheyAreVisible) {
  const std::pair<int, int> ranges[] = {{0, 64}, {0, 1}, {63, 64}, {15, 33}};
  for (const int dim : kHeadDims) {
    for (const auto& [first, last] : ranges) {
      constexpr int kQueries = 7;
      const Tiles values(dim, dtype(), /*keys=*/false, 3);
      const std::vector<float> weights =
          RandomFloats(kQueries * kSegmentTokens, 4);
      std::vector<float> out(kQueries * dim);
      kernels().values(weights.data(), kQueries, dim, values.tiles, first, last,
                       nullptr, out.data());
      for (int i = 0; i < kQueries; ++i) {
        const Meant meant(&weights[i * kSegmentTokens], values, first, last);
        for (int d = 0; d < dim; ++d) {
          double expected = 0;
          for (int p = first; p < last; ++p) {
            expected += meant.weights[p] * values.numbers[p * dim + d];
          }
          ASSERT_NEAR(out[i * dim + d], expected, meant.tolerance)
              << "number " << d << " of " << dim << ", query " << i;
        }
      }
    }
  }
}

std::vector<KvDtype> AllDtypes() {
  std::vector<KvDtype> dtypes;
  for (const auto& info : cache::kKvDtypes) dtypes.push_back(info.dtype);
  return dtypes;
}

INSTANTIATE_TEST_SUITE_P(
    Tables, SegmentTest,
    ::testing::Combine(::testing::ValuesIn(SupportedKernels()),
                       ::testing::ValuesIn(AllDtypes())),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param)->name, "_",
                          KvDtypeName(std::get<1>(info.param)));
    });

// A segment of keys and values of 8 bits, and what comes of five queries.
struct EightBitSegment {
  static constexpr int kDim = 48, kQueries = 5;

  explicit EightBitSegment(const Kernels& kernels)
      : queries(kernels, KvDtype::kInt8, kQueries, kDim) {}

  void Run(const Kernels& kernels) {
    kernels.scores_int8(queries.all(), kDim, keys.tiles, 0, kSegmentTiles,
                        nullptr, scores.data());
    kernels.values_int8(weights.data(), kQueries, kDim, values.tiles, 3, 60,
                        nullptr, out.data());
  }

  Queries queries;
  Tiles keys = Tiles(kDim, KvDtype::kInt8, /*keys=*/true, 5);
  Tiles values = Tiles(kDim, KvDtype::kInt8, /*keys=*/false, 6);
  std::vector<float> weights = RandomFloats(kQueries * kSegmentTokens, 7);
  std::vector<float> scores = std::vector<float>(kQueries * kSegmentTokens);
  std::vector<float> out = std::vector<float>(kQueries * kDim);
};

TEST(EightBitSegmentTest, HasTheSameBitsInEveryTable) {
  EightBitSegment scalar(kScalarKernels);
  scalar.Run(kScalarKernels);
  for (const Kernels* kernels : SupportedKernels()) {
    EightBitSegment segment(*kernels);
    segment.Run(*kernels);
    EXPECT_EQ(segment.scores, scalar.scores) << kernels->name;
    EXPECT_EQ(segment.out, scalar.out) << kernels->name;
  }
}

// A vector that held a NaN has a scale that is one (to_int8).
TEST(EightBitSegmentTest, WhatIsNoNumberShowsWhereItIsSeenAndNowhereElse) {
  constexpr int kDim = EightBitSegment::kDim;
  constexpr float kBad = std::numeric_limits<float>::quiet_NaN();
  for (const Kernels* kernels : SupportedKernels()) {
    EightBitSegment segment(*kernels);
    const auto spoil = [&](Tiles& tiles, int p) {
      const int64_t tile = 16 * kDim + 64;
      std::memcpy(&tiles.stored[p / 16 * tile + 16 * kDim + 4 * (p % 16)],
                  &kBad, 4);
    };
    spoil(segment.keys, 17);
    spoil(segment.values, 2);   // before the first that is seen
    spoil(segment.values, 60);  // behind the last
    segment.Run(*kernels);
    for (size_t i = 0; i < segment.scores.size(); ++i) {
      EXPECT_EQ(std::isnan(segment.scores[i]), i % kSegmentTokens == 17);
    }
    for (const float x : segment.out) EXPECT_TRUE(std::isfinite(x));
    spoil(segment.values, 3);
    segment.Run(*kernels);
    for (const float x : segment.out) EXPECT_TRUE(std::isnan(x));
  }
}

TEST(EightBitSegmentTest, QueriesKeepSixteenBits) {
  for (const Kernels* kernels : SupportedKernels()) {
    for (const int n : {16, 48, 1024}) {
      const std::vector<float> in = RandomFloats(n, 8);
      std::vector<int16_t> out(n);
      const float scale = kernels->round_query(in.data(), n, out.data());
      float largest = 0;
      for (const float x : in) largest = std::max(largest, std::abs(x));
      EXPECT_FLOAT_EQ(scale, largest / (n > 512 ? 16383 : 32767));
      for (int i = 0; i < n; ++i) {
        EXPECT_NEAR(scale * out[i], in[i], 0.501 * scale) << kernels->name;
      }
    }
  }
}

// All numbers at their largest: sums that just fit.
TEST(EightBitSegmentTest, LargeHeadsDoNotOverflow) {
  for (const int dim : {512, 528, 1024}) {
    Tiles keys(dim, KvDtype::kInt8, /*keys=*/true, 5);
    for (int j = 0; j < kSegmentTiles; ++j) {
      std::memset(const_cast<void*>(keys.tiles[j]), 127, 16 * dim);
    }
    const std::vector<float> query(dim, 3.0f);
    std::vector<int16_t> rounded(dim);
    for (const Kernels* kernels : SupportedKernels()) {
      const float scale =
          kernels->round_query(query.data(), dim, rounded.data());
      std::vector<float> scores(kSegmentTokens);
      kernels->scores_int8({query.data(), rounded.data(), &scale, 1}, dim,
                           keys.tiles, 0, kSegmentTiles, nullptr,
                           scores.data());
      for (int p = 0; p < kSegmentTokens; ++p) {
        EXPECT_FLOAT_EQ(scores[p], 127.0 * 3 * dim * keys.scales[p]);
      }
    }
  }
}

class NarrowTest : public ::testing::TestWithParam<const Kernels*> {};

// Every upper half of a float, with lower halves below, at and above the ties.
TEST_P(NarrowTest, GivesTheBfloat16sOfTheScalarConversion) {
  for (const uint32_t lower :
       {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
    for (uint32_t upper = 0; upper < 0x10000; upper += 16) {
      float in[16];
      uint16_t out[16];
      for (int i = 0; i < 16; ++i) {
        in[i] = absl::bit_cast<float>((upper + i) << 16 | lower);
      }
      GetParam()->to_bf16(in, 16, out);
      for (int i = 0; i < 16; ++i) {
        ASSERT_EQ(out[i], FloatToBfloat16(in[i])) << upper + i << ", " << lower;
        const bool is_nan = std::isnan(Bfloat16ToFloat(out[i]));
        ASSERT_EQ(is_nan, std::isnan(in[i])) << upper + i << ", " << lower;
      }
    }
  }
}

TEST_P(NarrowTest, WidensEveryBfloat16AndNarrowsItBack) {
  for (int first = 0; first < 0x10000; first += 16) {
    uint16_t in[16], back[16];
    for (int i = 0; i < 16; ++i) in[i] = first + i;
    float wide[16];
    GetParam()->widen_bf16(in, 16, wide);
    GetParam()->to_bf16(wide, 16, back);
    for (int i = 0; i < 16; ++i) {
      ASSERT_EQ(absl::bit_cast<uint32_t>(wide[i]), uint32_t{in[i]} << 16);
      // A NaN stays one; its bits may change.
      const bool same = back[i] == in[i];
      ASSERT_TRUE(same || std::isnan(wide[i])) << in[i];
    }
  }
}

TEST_P(NarrowTest, GivesTheScaledInt8sOfTheDefinition) {
  std::vector<std::vector<float>> vectors = {
      std::vector<float>(48, 0.0f), std::vector<float>(16, 0x1p-101f),
      std::vector<float>(16, 0x1p-100f), std::vector<float>(16, -0x1p127f)};
  for (const int n : {16, 48, 64, 128}) {
    for (uint32_t seed = 1; seed < 200; ++seed) {
      vectors.push_back(RandomFloats(n, seed));
    }
  }
  // Whole and half scales: ties.
  for (int i = 0; i < 16; ++i) vectors.back()[i] = 0.5f * i;
  vectors.back()[77] = -127;
  for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
    vectors.push_back(RandomFloats(32, 7));
    vectors.back()[21] = bad;
  }
  for (const std::vector<float>& vector : vectors) {
    const int n = static_cast<int>(vector.size());
    std::vector<int8_t> expected(n), q(n, 99);
    const float scale = RoundToScaledInt8(vector, expected.data());
    const float got = GetParam()->to_int8(vector.data(), n, q.data());
    ASSERT_EQ(q, expected);
    ASSERT_TRUE(got == scale || (std::isnan(got) && std::isnan(scale)))
        << got << " for " << scale;
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, NarrowTest,
                         ::testing::ValuesIn(SupportedKernels()),
                         [](const auto& info) {
                           return std::string(info.param->name);
                         });

}  // namespace
}  // namespace millrace::backends::onednn
