// A model's weights, packed into one stretch of memory in the order in which a
// step reads them: q k v, o, gate and up in turns of a group, down, layer by
// layer, then the output matrix.
#ifndef MILLRACE_BACKENDS_ONEDNN_WEIGHTS_H_
#define MILLRACE_BACKENDS_ONEDNN_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/model_file/model_config.h"
#include "backends/model_file/model_file.h"
#include "backends/onednn/memory_region.h"
#include "backends/onednn/packed_matrix.h"

namespace millrace::backends::onednn {

struct LayerWeights {
  const float* attention_norm = nullptr;     // [embedding_size]
  PackedMatrix query, key, value;            // from embedding_size
  PackedMatrix attention_output;             // to embedding_size
  const float* feed_forward_norm = nullptr;  // [embedding_size]
  PackedMatrix gate, up;                     // to feed_forward_size
  PackedMatrix down;                         // to embedding_size
};

// Movable; immutable once loaded.
struct Weights {
  MemoryRegion memory;
  std::vector<LayerWeights> layers;
  const float* output_norm = nullptr;  // [embedding_size]
  PackedMatrix output;                 // to vocabulary_size
  PackedMatrix embedding;              // the same memory if tied
};

// NOT_FOUND names a tensor that the file lacks; RESOURCE_EXHAUSTED if there is
// no memory. `file` may be closed afterwards.
absl::StatusOr<Weights> LoadWeights(const ModelFile& file);

// Bytes that the loaded weights take. 0 if the file lacks a tensor.
int64_t WeightBytes(const ModelFile& file);

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_WEIGHTS_H_
