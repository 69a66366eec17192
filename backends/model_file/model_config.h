// The shape of a decoder-only transformer, as its file states it.
//
// A ModelConfig that a ModelFile returns is consistent: every number is
// positive and bounded, num_heads is a multiple of num_kv_heads, head_dim is
// even, and the tensors of the file have the shapes that follow from it.
#ifndef MILLRACE_BACKENDS_MODEL_FILE_MODEL_CONFIG_H_
#define MILLRACE_BACKENDS_MODEL_FILE_MODEL_CONFIG_H_

#include <cstdint>
#include <string>

namespace millrace::backends {

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // for people; may be empty

  int num_layers = 0;    // decoder layers, each attention + feed-forward
  int num_heads = 0;     // query heads
  int num_kv_heads = 0;  // key and value heads; divides num_heads
  int head_dim = 0;      // values of one head; even. The whole head is rotated
  int embedding_size = 0;     // width of the residual stream
  int feed_forward_size = 0;  // width between gate/up and down
  int vocabulary_size = 0;    // rows of the embedding, and logits of a token

  // Tokens of the longest text the model was trained on. Not a limit of ours:
  // policies keep distances below it.
  int64_t trained_context = 0;

  // Pair i of a head turns by base^(-2i / head_dim) radians per position.
  // Pairs are neighbours: values 2i and 2i + 1.
  double rope_base = 10000.0;

  // Added to the mean square before the root in RMS norm.
  float rms_epsilon = 1e-5f;

  // The output matrix is the embedding: FindTensor("output.weight") has none.
  bool tied_embedding = false;

  int64_t query_size() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_size() const { return int64_t{num_kv_heads} * head_dim; }
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_MODEL_FILE_MODEL_CONFIG_H_
