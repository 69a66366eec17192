// A ModelFile is a model on disk, read and checked: its shape, its tokenizer
// and its weights.
//
//   auto file = OpenModelFile("/models/smollm2.gguf", {});     // registry.h
//   if (!file.ok()) return file.status();                // reason: see below
//   const ModelConfig& config = (*file)->config();
//   auto tensor = (*file)->FindTensor("blk.0.attn_q.weight");
//   for (int64_t r = 0; r < tensor->rows; ++r) Repack(tensor->Row(r));
//
// A file is hostile until proven otherwise. What opened has been checked
// whole: every tensor that the architecture needs is there, once, with the
// shape that config() says; no other tensor is; every scale, minimum and float
// weight is a finite number. Nothing that the file says and that would change
// the model's results is ignored.
//
// Names of tensors, whatever the format (matrices multiply from the left:
// y = W x, with W of rows = outputs and cols = inputs):
//
//   token_embd.weight           [vocabulary_size][embedding_size]
//   output_norm.weight          [1][embedding_size]
//   output.weight               like token_embd; absent if tied_embedding
//   blk.N.attn_norm.weight      [1][embedding_size]
//   blk.N.attn_q.weight         [num_heads * head_dim][embedding_size]
//   blk.N.attn_k.weight         [num_kv_heads * head_dim][embedding_size]
//   blk.N.attn_v.weight         [num_kv_heads * head_dim][embedding_size]
//   blk.N.attn_output.weight    [embedding_size][num_heads * head_dim]
//   blk.N.ffn_norm.weight       [1][embedding_size]
//   blk.N.ffn_gate.weight       [feed_forward_size][embedding_size]
//   blk.N.ffn_up.weight         [feed_forward_size][embedding_size]
//   blk.N.ffn_down.weight       [embedding_size][feed_forward_size]
//
// Norm weights are F32; a matrix is of any WeightType. The rows of attn_q and
// attn_k are ordered so that rotation pairs are neighbours.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_MODEL_FILE_H_
#define MILLRACE_BACKENDS_MODEL_FILE_MODEL_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "backends/model_file/model_config.h"
#include "backends/model_file/tokenizer_metadata.h"
#include "backends/quant/weight_type.h"

namespace millrace::backends {

// A tensor in the file's memory, row-major without gaps. Valid while the
// ModelFile lives.
struct TensorView {
  std::string name;
  WeightType type = WeightType::kF32;
  int64_t rows = 0;                // outputs of a matrix; 1 for a vector
  int64_t cols = 0;                // inputs of a matrix; whole blocks
  absl::Span<const uint8_t> data;  // rows * RowBytes(type, cols), 8-aligned

  int64_t row_bytes() const { return RowBytes(type, cols); }
  const uint8_t* Row(int64_t row) const {
    return data.data() + row * row_bytes();
  }
};

// For logs and `millrace info`.
struct ModelFileInfo {
  std::string path;    // as it was opened
  std::string format;  // "GGUF version 3"
  int64_t file_bytes = 0;
  std::string sha256;        // of the whole file, 64 lower-case hex digits
  std::string weight_types;  // by bytes, most first: "Q4_1 66%, Q8_0 31%"
  int64_t num_tensors = 0;
  int64_t num_parameters = 0;  // elements of all tensors
};

// Thread-safe: immutable. Holds the whole file in memory; destroy it once a
// backend has repacked the weights.
class ModelFile {
 public:
  virtual ~ModelFile() = default;

  virtual const ModelConfig& config() const = 0;

  // What a tokenizer is made of.
  virtual const TokenizerMetadata& tokenizer() const = 0;

  virtual const ModelFileInfo& info() const = 0;

  // NOT_FOUND names the tensor.
  virtual absl::StatusOr<TensorView> FindTensor(
      absl::string_view name) const = 0;

  // All names, in the order of the file.
  virtual std::vector<std::string> TensorNames() const = 0;
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_MODEL_FILE_H_
