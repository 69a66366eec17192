// Random weights of any type, for tests of kernels.
#ifndef MILLRACE_TESTS_BACKENDS_ONEDNN_RANDOM_TENSOR_H_
#define MILLRACE_TESTS_BACKENDS_ONEDNN_RANDOM_TENSOR_H_

#include <cstdint>
#include <random>
#include <vector>

#include "backends/model_file/model_file.h"
#include "backends/quant/weight_type.h"

namespace millrace::backends::onednn {

// A tensor and its bytes. Scales are about 1 / sqrt(cols), so that products
// with unit inputs are about 1.
struct RandomTensor {
  std::vector<uint64_t> memory;  // aligned to 8
  TensorView view;
};

RandomTensor MakeRandomTensor(WeightType type, int rows, int cols,
                              uint32_t seed);

// Numbers of a normal distribution.
std::vector<float> RandomFloats(int64_t n, uint32_t seed);

// The tensor as floats, row-major.
std::vector<float> Dequantised(const TensorView& tensor);

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_TESTS_BACKENDS_ONEDNN_RANDOM_TENSOR_H_
