// A model of any size that no file holds, to measure speed: its weights are the
// same few numbers over and over, so that 7 billion of them take the memory of
// its largest matrix.
//
//   const auto file = SyntheticModel({.num_layers = 32, ...},
//   WeightType::kQ4_1,
//                                    WeightType::kQ8_0);
#ifndef MILLRACE_TESTS_TESTING_SYNTHETIC_MODEL_H_
#define MILLRACE_TESTS_TESTING_SYNTHETIC_MODEL_H_

#include <memory>

#include "backends/model_file/model_config.h"
#include "backends/model_file/model_file.h"
#include "backends/quant/weight_type.h"

namespace millrace::testing {

// `embeddings` are of token_embd, and of output. It has no tokenizer.
// REQUIRES: inputs of quantised matrices are multiples of 32.
std::unique_ptr<const backends::ModelFile> SyntheticModel(
    const backends::ModelConfig& config, backends::WeightType matrices,
    backends::WeightType embeddings);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_SYNTHETIC_MODEL_H_
