// A model's weights as plain floats.
#ifndef MILLRACE_BACKENDS_REFERENCE_WEIGHTS_H_
#define MILLRACE_BACKENDS_REFERENCE_WEIGHTS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "backends/model_file/model_file.h"
#include "backends/reference/mat_mul.h"

namespace millrace::backends::reference {

struct LayerWeights {
  std::vector<float> attention_norm;  // [embedding_size]
  Matrix query, key, value;           // inputs: embedding_size
  Matrix attention_output;            // outputs: embedding_size
  std::vector<float> feed_forward_norm;
  Matrix gate, up;  // outputs: feed_forward_size
  Matrix down;      // inputs: feed_forward_size
};

struct Weights {
  Matrix embedding;  // [vocabulary_size][embedding_size]
  std::vector<LayerWeights> layers;
  std::vector<float> output_norm;
  Matrix untied_output;  // empty if the output matrix is the embedding

  const Matrix& output() const {
    return untied_output.values.empty() ? embedding : untied_output;
  }
};

// Dequantises all tensors. Errors are those of ModelFile::FindTensor.
absl::StatusOr<Weights> LoadWeights(const ModelFile& file);

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_WEIGHTS_H_
