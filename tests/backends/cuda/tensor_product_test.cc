// Products on tensor cores, against sums in double precision: every weight
// type, both shapes of blocks, sizes that no block divides.

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backends/cuda/kernels/kernels.h"
#include "backends/cuda/weights.h"
#include "backends/quant/dequantize.h"
#include "gtest/gtest.h"
#include "tests/testing/cuda_emulator/emulated_device.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends::cuda {
namespace {

using testing::Quantize;
using testing::RandomValues;

constexpr float kEpsilon = 1e-5f;

// A part of the largest result.
constexpr double kTolerance = 5e-4;

std::vector<float> Random(int64_t n, uint64_t seed) {
  RandomValues random(seed);
  std::vector<float> values(n);
  for (float& value : values) value = random.Value();
  return values;
}

// A matrix, as the kernel has it and as numbers.
class TestMatrix {
 public:
  TestMatrix(WeightType type, int outputs, int inputs, uint64_t seed)
      : data_(Quantize(type, Random(int64_t{outputs} * inputs, seed))),
        view_{.name = "matrix",
              .type = type,
              .rows = outputs,
              .cols = inputs,
              .data = {reinterpret_cast<const uint8_t*>(data_.data()),
                       data_.size()}},
        matrix_{.type = type, .outputs = outputs, .inputs = inputs},
        tiles_((matrix_.bytes() + 15) / 16) {
    const absl::Span<uint8_t> tiles(reinterpret_cast<uint8_t*>(tiles_.data()),
                                    matrix_.bytes());
    PackTiles(view_, tiles);
    matrix_.tiles = tiles.data();
  }
  TestMatrix(const TestMatrix&) = delete;

  const Matrix& matrix() const { return matrix_; }

  double Product(int output, const std::vector<double>& row) const {
    std::vector<float> weights(matrix_.inputs);
    DequantizeRow(view_.type, view_.Row(output), weights.data(),
                  matrix_.inputs);
    double sum = 0;
    for (int i = 0; i < matrix_.inputs; ++i) sum += weights[i] * row[i];
    return sum;
  }

 private:
  struct alignas(16) Sixteen {
    uint8_t bytes[16];
  };
  const std::string data_;
  const TensorView view_;
  Matrix matrix_;
  std::vector<Sixteen> tiles_ = {};
};

// Rows of activations as the device has them, and what is to come of them.
class Products {
 public:
  Products(ProductEnd end, bool with_norm, int rows, int multiprocessors)
      : end_(end), with_norm_(with_norm), multiprocessors_(multiprocessors) {
    header_.num_rows = rows;
  }

  // The largest error, as a part of the largest result.
  double WorstError(const std::vector<const TestMatrix*>& matrices) {
    const int inputs = matrices[0]->matrix().inputs, rows = header_.num_rows;
    const int stride = Padded(inputs);
    const std::vector<float> in = PaddedRows(rows, inputs, 7);
    const std::vector<float> norm = PaddedRows(1, inputs, 8);
    std::vector<uint16_t> halves(int64_t{rows} * stride);
    std::vector<float> factors(rows);
    ProductArgs args = {.step = &header_,
                        .wanted_rows = false,
                        .max_rows = rows,
                        .in = {const_cast<float*>(in.data()), stride},
                        .norm = with_norm_ ? norm.data() : nullptr,
                        .epsilon = kEpsilon,
                        .num_parts = static_cast<int>(matrices.size()),
                        .parts = {},
                        .end = end_,
                        .kv = {},
                        .halves = {halves.data(), factors.data()},
                        .multiprocessors = multiprocessors_};
    std::vector<std::vector<float>> out;
    for (const TestMatrix* matrix : matrices) {
      out.push_back(Random(int64_t{rows} * matrix->matrix().outputs, 9));
    }
    for (size_t i = 0; i < matrices.size(); ++i) {
      args.parts[i] = {matrices[i]->matrix(),
                       {out[i].data(), matrices[i]->matrix().outputs}};
    }
    const std::vector<std::vector<float>> before = out;
    const auto device = NewEmulatedDevice();
    device->kernels().product(device->stream(), args);
    EXPECT_TRUE(device->Synchronize().ok());

    double worst = 0, largest = 0;
    const size_t parts = end_ == ProductEnd::kGate ? 1 : matrices.size();
    for (int row = 0; row < rows; ++row) {
      const std::vector<double> x =
          Normed(&in[int64_t{row} * stride], norm, inputs);
      for (size_t i = 0; i < parts; ++i) {
        const int outputs = matrices[i]->matrix().outputs;
        for (int output = 0; output < outputs; ++output) {
          const int64_t at = int64_t{row} * outputs + output;
          const double expected =
              Expected(matrices, i, output, x, before[i][at]);
          largest = std::max(largest, std::abs(expected));
          const double error = std::abs(out[i][at] - expected);
          worst = error <= worst ? worst : error;
        }
      }
    }
    return worst / largest;
  }

 private:
  static int Padded(int inputs) {
    return (inputs + kTileInputs - 1) / kTileInputs * kTileInputs;
  }

  static std::vector<float> PaddedRows(int rows, int inputs, uint64_t seed) {
    const std::vector<float> values = Random(int64_t{rows} * inputs, seed);
    std::vector<float> padded(int64_t{rows} * Padded(inputs));
    for (int row = 0; row < rows; ++row) {
      std::copy_n(&values[int64_t{row} * inputs], inputs,
                  &padded[int64_t{row} * Padded(inputs)]);
    }
    return padded;
  }

  std::vector<double> Normed(const float* row, const std::vector<float>& norm,
                             int inputs) const {
    std::vector<double> x(row, row + inputs);
    if (!with_norm_) return x;
    double squares = 0;
    for (const double value : x) squares += value * value;
    for (int i = 0; i < inputs; ++i) {
      x[i] *= norm[i] / std::sqrt(squares / inputs + kEpsilon);
    }
    return x;
  }

  double Expected(const std::vector<const TestMatrix*>& matrices, size_t part,
                  int output, const std::vector<double>& x,
                  double before) const {
    const double product = matrices[part]->Product(output, x);
    if (end_ == ProductEnd::kStore) return product;
    if (end_ == ProductEnd::kAdd) return before + product;
    return product / (1 + std::exp(-product)) * matrices[1]->Product(output, x);
  }

  const ProductEnd end_;
  const bool with_norm_;
  const int multiprocessors_;
  StepHeader header_ = {};
};

constexpr int kFew = 1, kMany = 1000;  // multiprocessors: wide blocks, narrow

class TensorProductTest
    : public ::testing::TestWithParam<std::tuple<WeightType, int>> {
 protected:
  WeightType type() const { return std::get<0>(GetParam()); }
  int multiprocessors() const { return std::get<1>(GetParam()); }
};

TEST_P(TensorProductTest, RowsOfEveryNumber) {
  const TestMatrix matrix(type(), 200, 7 * 32, 1);
  for (const int rows : {16, 17, 64, 128, 130}) {
    EXPECT_LE(Products(ProductEnd::kAdd, false, rows, multiprocessors())
                  .WorstError({&matrix}),
              kTolerance)
        << rows;
  }
}

TEST_P(TensorProductTest, SeveralMatricesOfUnequalSizes) {
  const TestMatrix a(type(), 144, 96, 1), b(type(), 33, 96, 2),
      c(type(), 15, 96, 3);
  EXPECT_LE(Products(ProductEnd::kStore, true, 40, multiprocessors())
                .WorstError({&a, &b, &c}),
            kTolerance);
}

TEST_P(TensorProductTest, AGateTakesGroupsInTurns) {
  const TestMatrix gate(type(), 150, 160, 1), up(type(), 150, 160, 2);
  EXPECT_LE(Products(ProductEnd::kGate, true, 50, multiprocessors())
                .WorstError({&gate, &up}),
            kTolerance);
}

TEST(TensorProductTypesTest, MatricesOfUnequalTypesAreToldApart) {
  const TestMatrix a(WeightType::kQ4_0, 48, 64, 1),
      b(WeightType::kF16, 32, 64, 2), c(WeightType::kQ8_0, 20, 64, 3);
  EXPECT_LE(
      Products(ProductEnd::kStore, true, 20, kMany).WorstError({&a, &b, &c}),
      kTolerance);
  EXPECT_LE(Products(ProductEnd::kGate, true, 20, kMany).WorstError({&a, &a}),
            kTolerance);
}

INSTANTIATE_TEST_SUITE_P(
    Types, TensorProductTest,
    ::testing::Combine(::testing::Values(WeightType::kF32, WeightType::kF16,
                                         WeightType::kBF16, WeightType::kQ8_0,
                                         WeightType::kQ4_0, WeightType::kQ4_1),
                       ::testing::Values(kFew, kMany)),
    [](const auto& info) {
      return absl::StrCat(WeightTypeName(std::get<0>(info.param)),
                          std::get<1>(info.param) == kFew ? "Wide" : "Narrow");
    });

}  // namespace
}  // namespace millrace::backends::cuda
