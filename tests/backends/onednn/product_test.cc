// Matrix products of every table of kernels that this machine can run.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "backends/onednn/activations.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/onednn/float_gemm.h"
#include "backends/onednn/memory_region.h"
#include "backends/onednn/packed_matrix.h"
#include "gtest/gtest.h"
#include "tests/backends/onednn/random_tensor.h"

namespace millrace::backends::onednn {
namespace {

using Shape = std::pair<int, int>;  // outputs, inputs

// The default model's matrices (the output matrix cut short), and odd ones:
// outputs that are no multiple of 16, an odd number of 32-blocks.
const Shape kShapes[] = {{576, 576},  {192, 576}, {1536, 576}, {576, 1536},
                         {4096, 576}, {1, 32},    {17, 96},    {33, 160}};
const WeightType kQuantised[] = {WeightType::kQ4_0, WeightType::kQ4_1,
                                 WeightType::kQ8_0};
const WeightType kFloats[] = {WeightType::kF32, WeightType::kF16,
                              WeightType::kBF16};

// A packed matrix with its memory.
struct Packed {
  explicit Packed(const TensorView& tensor) {
    const int64_t stride = GroupBytes(tensor.type, tensor.cols);
    memory = *MemoryRegion::Map((tensor.rows + 15) / 16 * stride, "a test");
    matrix = Pack(tensor, memory.data(), stride);
  }
  MemoryRegion memory;
  PackedMatrix matrix;
};

Activations Inputs(const Kernels& kernels, const std::vector<float>& in,
                   int rows, int inputs) {
  Activations x = *Activations::Create(rows, inputs);
  x.Reset(rows, inputs);
  for (int t = 0; t < rows; ++t) {
    std::copy_n(&in[int64_t{t} * inputs], inputs, x.row(t));
    if (inputs % 32 == 0) x.Quantise(kernels, t);
  }
  return x;
}

// [rows][outputs], by the kernels' products.
std::vector<float> Multiply(const Kernels& kernels, const PackedMatrix& matrix,
                            const Activations& x) {
  const int width = matrix.groups() * kGroupRows;
  std::vector<float> padded(int64_t{x.rows()} * width);
  const QuantisedProduct product =
      matrix.type == WeightType::kQ4_0   ? kernels.q4_0
      : matrix.type == WeightType::kQ4_1 ? kernels.q4_1
                                         : kernels.q8_0;
  const FloatProduct floats = matrix.type == WeightType::kF32   ? kernels.f32
                              : matrix.type == WeightType::kF16 ? kernels.f16
                                                                : kernels.bf16;
  for (int g = 0; g < matrix.groups(); ++g) {
    float* const out = &padded[g * kGroupRows];
    if (!matrix.quantised()) {
      floats(matrix.group(g), kGroupRows, matrix.cols(), x.row(0), x.rows(),
             out, width);
      continue;
    }
    for (int t = 0; t < x.rows(); t += kPanelTokens) {
      product(matrix.group(g), matrix.blocks(), x.panel(t),
              std::min(kPanelTokens, x.rows() - t), out + int64_t{t} * width,
              width);
    }
  }
  std::vector<float> out;
  for (int t = 0; t < x.rows(); ++t) {
    const auto row = padded.begin() + int64_t{t} * width;
    out.insert(out.end(), row, row + matrix.outputs);
  }
  return out;
}

// What the panel says that token t is.
std::vector<float> Dequantised(const Activations& x, int t, int inputs) {
  const QuantisedPanel panel = x.panel(t / kPanelTokens * kPanelTokens);
  const int lane = panel.width == 1 ? 0 : t % kPanelTokens;
  std::vector<float> values(inputs);
  for (int i = 0; i < inputs; ++i) {
    const int q = panel.q[((i / 4) * panel.width + lane) * 4 + i % 4];
    values[i] = q * panel.d[i / 32 * panel.width + lane];
  }
  return values;
}

double Dot(const float* a, const float* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += double{a[i]} * b[i];
  return sum;
}

struct Case {
  const Kernels* kernels;
  WeightType type;
  Shape shape;
};

std::vector<Case> Cases(absl::Span<const WeightType> types) {
  std::vector<Case> cases;
  for (const Kernels* kernels : SupportedKernels()) {
    for (const WeightType type : types) {
      for (const Shape& shape : kShapes)
        cases.push_back({kernels, type, shape});
    }
  }
  return cases;
}

std::string Name(const testing::TestParamInfo<Case>& info) {
  return std::string(info.param.kernels->name) + "_" +
         std::string(WeightTypeName(info.param.type)) + "_" +
         std::to_string(info.param.shape.first) + "x" +
         std::to_string(info.param.shape.second);
}

class ProductTest : public testing::TestWithParam<Case> {
 protected:
  int outputs() const { return GetParam().shape.first; }
  int inputs() const { return GetParam().shape.second; }
  const Kernels& kernels() const { return *GetParam().kernels; }

  const RandomTensor tensor_ =
      MakeRandomTensor(GetParam().type, outputs(), inputs(), 1);
  const Packed packed_{tensor_.view};
};

class QuantisedProductTest : public ProductTest {};

TEST_P(QuantisedProductTest, IsTheProductOfTheDequantisedNumbers) {
  const std::vector<float> in = RandomFloats(3 * inputs(), 2);
  const Activations x = Inputs(kernels(), in, 3, inputs());
  const std::vector<float> out = Multiply(kernels(), packed_.matrix, x);
  const std::vector<float> weights = onednn::Dequantised(tensor_.view);
  for (int t = 0; t < 3; ++t) {
    const std::vector<float> values = Dequantised(x, t, inputs());
    for (int r = 0; r < outputs(); ++r) {
      EXPECT_NEAR(out[t * outputs() + r],
                  Dot(&weights[int64_t{r} * inputs()], values.data(), inputs()),
                  2e-5)
          << "token " << t << " output " << r;
    }
  }
}

TEST_P(QuantisedProductTest, GivesTheScalarKernelsBitsForAnyNumberOfTokens) {
  const Kernels& scalar = kScalarKernels;
  const std::vector<float> in = RandomFloats(11 * inputs(), 3);
  const std::vector<float> expected =
      Multiply(scalar, packed_.matrix, Inputs(scalar, in, 11, inputs()));
  for (int rows = 1; rows <= 11; ++rows) {
    const std::vector<float> out = Multiply(
        kernels(), packed_.matrix, Inputs(kernels(), in, rows, inputs()));
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), 4 * out.size()), 0)
        << rows << " tokens";
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, QuantisedProductTest,
                         testing::ValuesIn(Cases(kQuantised)), Name);

// The largest numbers that weights and activations can have, of equal and of
// opposite signs: sums of 16 bits would saturate if there were any.
TEST(QuantisedExtremesTest, NothingSaturates) {
  for (const WeightType type : kQuantised) {
    for (const int byte : {0x00, 0x7f, 0x80, 0xff}) {
      RandomTensor tensor = MakeRandomTensor(type, 16, 64, 4);
      auto* const data = reinterpret_cast<uint8_t*>(tensor.memory.data());
      const int64_t header = type == WeightType::kQ4_1 ? 4 : 2;
      for (int64_t at = 0; at < 32 * BlockBytes(type); at += BlockBytes(type)) {
        std::fill(data + at + header, data + at + BlockBytes(type), byte);
      }
      const Packed packed(tensor.view);
      for (const float x : {-1.0f, 1.0f}) {
        const std::vector<float> in(64, x);
        const std::vector<float> expected = Multiply(
            kScalarKernels, packed.matrix, Inputs(kScalarKernels, in, 1, 64));
        const std::vector<float> weights = onednn::Dequantised(tensor.view);
        EXPECT_NEAR(expected[5], Dot(&weights[5 * 64], in.data(), 64), 1e-4);
        for (const Kernels* kernels : SupportedKernels()) {
          EXPECT_EQ(
              Multiply(*kernels, packed.matrix, Inputs(*kernels, in, 1, 64)),
              expected)
              << kernels->name << " " << WeightTypeName(type) << " " << byte;
        }
      }
    }
  }
}

class FloatProductTest : public ProductTest {};

TEST_P(FloatProductTest, IsTheProductForAnyNumberOfTokens) {
  const std::vector<float> in = RandomFloats(9 * inputs(), 5);
  const std::vector<float> weights = onednn::Dequantised(tensor_.view);
  std::vector<float> all;
  for (const int rows : {9, 1, 4, 6}) {
    const std::vector<float> out = Multiply(
        kernels(), packed_.matrix, Inputs(kernels(), in, rows, inputs()));
    if (all.empty()) all = out;
    for (size_t i = 0; i < out.size(); ++i) {
      const int t = i / outputs(), r = i % outputs();
      EXPECT_EQ(out[i], all[i]);  // a row's batch mates do not matter
      EXPECT_NEAR(out[i],
                  Dot(&weights[int64_t{r} * inputs()],
                      &in[int64_t{t} * inputs()], inputs()),
                  1e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, FloatProductTest,
                         testing::ValuesIn(Cases(kFloats)), Name);

TEST(FloatGemmTest, IsTheProduct) {
  const RandomTensor tensor = MakeRandomTensor(WeightType::kF32, 64, 576, 6);
  const std::vector<float> weights = onednn::Dequantised(tensor.view);
  const std::vector<float> in = RandomFloats(17 * 576, 7);
  std::vector<float> out(17 * 64);
  ASSERT_TRUE(FloatGemm(weights.data(), 64, 576, in.data(), 17, out.data()));
  for (int t = 0; t < 17; ++t) {
    for (int r = 0; r < 64; ++r) {
      EXPECT_NEAR(out[t * 64 + r], Dot(&weights[r * 576], &in[t * 576], 576),
                  1e-5);
    }
  }
}

TEST(PackedMatrixTest, UnpacksToTheNumbersOfTheFile) {
  for (const WeightType type :
       {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0,
        WeightType::kF32, WeightType::kF16, WeightType::kBF16}) {
    for (const Shape& shape : {Shape{33, 96}, Shape{16, 64}}) {
      const RandomTensor tensor =
          MakeRandomTensor(type, shape.first, shape.second, 8);
      const Packed packed(tensor.view);
      const std::vector<float> expected = onednn::Dequantised(tensor.view);
      std::vector<float> row(shape.second);
      for (int r = 0; r < shape.first; ++r) {
        UnpackRow(packed.matrix, r, absl::MakeSpan(row));
        EXPECT_TRUE(std::equal(row.begin(), row.end(),
                               &expected[int64_t{r} * shape.second]))
            << WeightTypeName(type) << " row " << r;
      }
    }
  }
}

}  // namespace
}  // namespace millrace::backends::onednn
