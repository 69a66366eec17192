// A model's matrices on the device, in tiles (kernels/weight_tiles.h), in the
// order in which a step reads them.
#ifndef MILLRACE_BACKENDS_CUDA_WEIGHTS_H_
#define MILLRACE_BACKENDS_CUDA_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backends/cuda/device.h"
#include "backends/cuda/kernels/weight_tiles.h"
#include "backends/model_file/model_file.h"

namespace millrace::backends::cuda {

struct LayerWeights {
  const float* attention_norm;  // [embedding_size, up to a multiple of 32]
  Matrix query, key, value;
  Matrix attention_output;
  const float* feed_forward_norm;
  Matrix gate, up, down;
};

struct Weights {
  Memory memory;  // of all of them
  Matrix embedding;
  std::vector<LayerWeights> layers;
  const float* output_norm;
  Matrix output;  // the embedding itself, if the model ties them
};

// Errors are those of ModelFile::FindTensor and Device::Allocate.
absl::StatusOr<Weights> LoadWeights(const ModelFile& file, Device& device);

// Bytes that LoadWeights will allocate.
int64_t WeightBytes(const ModelFile& file);

// Puts a tensor into tiles. REQUIRES: `tiles` has Matrix::bytes() of it, zero.
void PackTiles(const TensorView& tensor, absl::Span<uint8_t> tiles);

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_WEIGHTS_H_
