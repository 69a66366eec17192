// The parts of the reference operations, by worked numbers; the operations
// themselves are held to an independent oracle in tests/exactness.

#include <atomic>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "backends/reference/kv_storage.h"
#include "backends/reference/mat_mul.h"
#include "backends/reference/ops.h"
#include "backends/reference/parallel.h"
#include "backends/reference/rms_norm.h"
#include "backends/reference/weights.h"
#include "gmock/gmock.h"
#include "tests/testing/fake_model.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends::reference {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using testing::RandomValues;

std::vector<float> Random(int n, uint64_t seed) {
  RandomValues random(seed);
  std::vector<float> values(n);
  for (float& value : values) value = random.Value();
  return values;
}

std::vector<float> Multiply(const Matrix& weights, const std::vector<float>& in,
                            int rows, int num_threads) {
  std::vector<float> out(rows * weights.outputs);
  MatMul(weights, in, rows, num_threads, absl::MakeSpan(out));
  return out;
}

TEST(MatMulTest, MultipliesFromTheLeft) {
  const Matrix weights{2, 3, {1, 2, 3, 4, 5, 6}};
  EXPECT_THAT(Multiply(weights, {1, 0, 0, 1, 1, 1}, 2, 1),
              ElementsAre(1, 4, 6, 15));
}

// In double a sum of these would be 1; in float, in order, the ones vanish.
TEST(MatMulTest, AddsInOrderInOneFloat) {
  const Matrix weights{1, 4, {1e8f, 1, -1e8f, 1}};
  EXPECT_THAT(Multiply(weights, {1, 1, 1, 1}, 1, 1), ElementsAre(1));
  const Matrix other{1, 4, {1e8f, -1e8f, 1, 1}};
  EXPECT_THAT(Multiply(other, {1, 1, 1, 1}, 1, 1), ElementsAre(2));
}

TEST(MatMulTest, IsThePlainLoopBitByBitAtEveryNumberOfRows) {
  const Matrix weights{13, 37, Random(13 * 37, 1)};
  for (const int rows : {1, 2, 15, 16, 17, 64, 65, 130}) {
    const std::vector<float> in = Random(rows * 37, rows);
    std::vector<float> expected;
    for (int t = 0; t < rows; ++t) {
      for (int o = 0; o < 13; ++o) {
        volatile float sum = 0;  // rounded after each product and each sum
        for (int i = 0; i < 37; ++i) {
          volatile float product = weights.values[o * 37 + i] * in[t * 37 + i];
          sum = sum + product;
        }
        expected.push_back(static_cast<float>(sum));
      }
    }
    for (const int num_threads : {1, 2, 5, 20}) {
      EXPECT_EQ(Multiply(weights, in, rows, num_threads), expected)
          << rows << " rows, " << num_threads << " threads";
    }
  }
}

TEST(RmsNormTest, DividesByTheRootOfTheMeanSquare) {
  // Mean square of (3, 4): 12.5; of (0, 0): only epsilon is left.
  const std::vector<float> out = RmsNorm({3, 4, 0, 0}, {1, 2}, 0.5f);
  EXPECT_FLOAT_EQ(out[0], 3 / std::sqrt(13.0f));
  EXPECT_FLOAT_EQ(out[1], 8 / std::sqrt(13.0f));
  EXPECT_EQ(out[2], 0);
  EXPECT_EQ(out[3], 0);
}

TEST(ParallelTest, CoversEveryIndexOnce) {
  for (const int n : {0, 1, 2, 7, 100}) {
    for (const int num_threads : {1, 2, 3, 8}) {
      std::vector<std::atomic<int>> visits(n);
      Parallel(n, num_threads, [&](int begin, int end) {
        for (int i = begin; i < end; ++i) ++visits[i];
      });
      EXPECT_THAT(std::vector<int>(visits.begin(), visits.end()), Each(1));
    }
  }
}

TEST(PlainKvStorageTest, RowsAreWhereTheCanonicalFormHasThem) {
  const cache::KvSpec spec{2, 2, 2, cache::KvDtype::kF32};
  const auto storage = PlainKvStorage::Create(spec, 3).value();
  storage->StoreRow(1, KvPart::kValue, 2, 5, {1, 2, 3, 4});
  std::vector<float> block(CanonicalBlockValues(spec));
  ASSERT_TRUE(storage->ReadBlocks({2}, absl::MakeSpan(block)).ok());
  // Layer 1, values, token 5: ((1 * 2 + 1) * 16 + 5) rows of 4 numbers.
  EXPECT_THAT(std::vector<float>(&block[212], &block[216]),
              ElementsAre(1, 2, 3, 4));
  std::vector<float> row(4);
  storage->LoadRow(1, KvPart::kValue, 2, 5, absl::MakeSpan(row));
  EXPECT_THAT(row, ElementsAre(1, 2, 3, 4));
}

TEST(WeightsTest, ATiedOutputIsNotHeldTwice) {
  const auto tied = LoadWeights(*testing::OpenTinyLlama({})).value();
  EXPECT_TRUE(tied.untied_output.values.empty());
  EXPECT_EQ(&tied.output(), &tied.embedding);
  const auto untied =
      LoadWeights(*testing::OpenTinyLlama({.tied_embedding = false})).value();
  EXPECT_EQ(&untied.output(), &untied.untied_output);
}

TEST(ReferenceOpsTest, RefusesTheStorageOfAnotherBackend) {
  const auto file = testing::OpenTinyLlama({});
  ReferenceOps ops(file->config(), LoadWeights(*file).value(), 1, 1);
  testing::FakeKvStorage storage(1);
  EXPECT_EQ(ops.Begin({}, storage).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace millrace::backends::reference
