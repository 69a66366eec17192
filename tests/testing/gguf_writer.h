// Writes tiny llama models with random weights, for tests of everything that
// needs a model and not a good one.
//
//   auto file = OpenTinyLlama({.num_layers = 3, .matrices =
//   WeightType::kQ4_1}); file->FindTensor("blk.0.attn_q.weight");
//
// Equal options give equal bytes, on every machine.
#ifndef MILLRACE_TESTS_TESTING_GGUF_WRITER_H_
#define MILLRACE_TESTS_TESTING_GGUF_WRITER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "backends/model_file/model_file.h"
#include "backends/quant/weight_type.h"
#include "tests/testing/gguf_image.h"

namespace millrace::testing {

using backends::WeightType;

struct TinyLlamaOptions {
  int num_layers = 2;
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 16;
  int embedding_size = 64;     // quantised: a multiple of 32, as are
  int feed_forward_size = 96;  // this and num_heads * head_dim
  int vocabulary_size = 320;   // 259 or more hold all bytes
  int64_t trained_context = 512;
  double rope_base = 10000.0;
  float rms_epsilon = 1e-5f;
  bool tied_embedding = true;

  WeightType embeddings = WeightType::kF32;  // token_embd, and output
  WeightType matrices = WeightType::kF32;    // of the layers
  // Types of single matrices: {"ffn_down", kQ8_0} in every layer,
  // {"blk.1.ffn_down", kQ4_0} in one, {"output", kF16}.
  std::map<std::string, WeightType> weight_types = {};

  uint64_t seed = 1;

  // ---- Tokenizer ----
  // Ids 0, 1 and 2 are <|endoftext|>, <|im_start|> (BOS) and <|im_end|> (EOS);
  // then all bytes; then results of merges; then unused tokens.
  std::string pre_tokenizer = "smollm";
  bool add_bos = false;
  std::optional<uint32_t> sink_id = {};
  std::string chat_template = "";  // empty: ChatML
};

// Deterministic numbers in [-1, 1), for weights and test data.
class RandomValues {
 public:
  explicit RandomValues(uint64_t seed) : state_(seed) {}
  uint64_t Bits();
  float Value();

 private:
  uint64_t state_;
};

// Values as stored weights: rounded to nearest, scales by the largest value.
// REQUIRES: values.size() is a multiple of BlockElements(type).
std::string Quantize(WeightType type, const std::vector<float>& values);

// The model as a file that is still open to changes.
GgufImage TinyLlama(const TinyLlamaOptions& options);

// Writes bytes to a new file in the test's own folder; returns its path.
std::string WriteTestFile(absl::string_view bytes,
                          absl::string_view suffix = ".gguf");

// Writes the model to a new file; returns its path.
std::string WriteTinyLlama(const TinyLlamaOptions& options);

// Writes it and opens it. Ends the process with the error if it is refused.
std::unique_ptr<const backends::ModelFile> OpenTinyLlama(
    const TinyLlamaOptions& options);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_GGUF_WRITER_H_
