// Attention over one segment, of every table of kernels that this machine can
// run and every dtype of keys and values, against sums in double precision.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/casts.h"
#include "absl/strings/str_cat.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/onednn/kv_storage.h"
#include "backends/quant/half.h"
#include "gtest/gtest.h"
#include "tests/backends/onednn/random_tensor.h"
#include "tests/testing/rounded.h"

namespace millrace::backends::onednn {
namespace {

using cache::KvDtype;
using testing::Rounded;

constexpr int kHeadDims[] = {16, 48, 64, 80};

// Four tiles as a storage keeps them, and the numbers that they mean.
struct Tiles {
  Tiles(int head_dim, KvDtype dtype, uint32_t seed)
      : numbers(RandomFloats(kSegmentTokens * head_dim, seed)) {
    const int64_t bytes = cache::BytesPerValue(dtype);
    stored.resize(numbers.size() * bytes);
    for (size_t i = 0; i < numbers.size(); ++i) {
      float& x = numbers[i];
      x = Rounded(x, dtype);
      const uint16_t two =
          dtype == KvDtype::kF16 ? FloatToHalf(x) : FloatToBfloat16(x);
      const void* const from = bytes == 2 ? static_cast<const void*>(&two) : &x;
      std::memcpy(&stored[i * bytes], from, bytes);
    }
    for (int j = 0; j < kSegmentTiles; ++j) {
      tiles[j] = &stored[j * stored.size() / kSegmentTiles];
    }
  }

  std::vector<float> numbers;
  std::vector<uint8_t> stored;
  const void* tiles[kSegmentTiles];
};

class SegmentTest
    : public ::testing::TestWithParam<std::tuple<const Kernels*, KvDtype>> {
 protected:
  KvDtype dtype() const { return std::get<1>(GetParam()); }
  KvKernels kernels() const {
    return KvKernelsFor(*std::get<0>(GetParam()), dtype());
  }
};

TEST_P(SegmentTest, ScoresAreProductsOfQueriesAndKeys) {
  for (const int dim : kHeadDims) {
    for (int n = 1; n <= 7; ++n) {
      const Tiles keys(dim, dtype(), 1);
      const std::vector<float> queries = RandomFloats(n * dim, 2);
      std::vector<float> scores(n * kSegmentTokens);
      kernels().scores(queries.data(), n, dim, keys.tiles, nullptr,
                       scores.data());
      for (int i = 0; i < n * kSegmentTokens; ++i) {
        const int query = i / kSegmentTokens, p = i % kSegmentTokens;
        double expected = 0;
        for (int d = 0; d < dim; ++d) {
          expected += double{queries[query * dim + d]} *
                      keys.numbers[p / 16 * 16 * dim + d * 16 + p % 16];
        }
        ASSERT_NEAR(scores[i], expected, 1e-4)
            << "position " << p << " of query " << query << ", dim " << dim;
      }
    }
  }
}

TEST_P(SegmentTest, ValuesAreWeighedWhereTheyAreVisible) {
  const std::pair<int, int> ranges[] = {{0, 64}, {0, 1}, {63, 64}, {15, 33}};
  for (const int dim : kHeadDims) {
    for (const auto& [first, last] : ranges) {
      constexpr int kQueries = 7;
      const Tiles values(dim, dtype(), 3);
      const std::vector<float> weights =
          RandomFloats(kQueries * kSegmentTokens, 4);
      std::vector<float> out(kQueries * dim);
      kernels().values(weights.data(), kQueries, dim, values.tiles, first, last,
                       nullptr, out.data());
      for (int i = 0; i < kQueries * dim; ++i) {
        double expected = 0;
        for (int p = first; p < last; ++p) {
          expected += double{weights[i / dim * kSegmentTokens + p]} *
                      values.numbers[p * dim + i % dim];
        }
        ASSERT_NEAR(out[i], expected, 1e-4) << "number " << i << " of " << dim;
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

INSTANTIATE_TEST_SUITE_P(Tables, NarrowTest,
                         ::testing::ValuesIn(SupportedKernels()),
                         [](const auto& info) {
                           return std::string(info.param->name);
                         });

}  // namespace
}  // namespace millrace::backends::onednn
