#include "backends/model_file/tensor_layout.h"

#include "absl/strings/str_cat.h"

namespace millrace::backends {
namespace {

void AddLayer(const ModelConfig& config, int layer,
              std::vector<TensorShape>& out) {
  const int64_t width = config.embedding_size;
  const int64_t query = config.query_size();
  const int64_t kv = config.kv_size();
  const int64_t hidden = config.feed_forward_size;
  const auto name = [layer](absl::string_view part) {
    return absl::StrCat("blk.", layer, ".", part, ".weight");
  };
  out.push_back({name("attn_norm"), 1, width, true});
  out.push_back({name("attn_q"), query, width});
  out.push_back({name("attn_k"), kv, width});
  out.push_back({name("attn_v"), kv, width});
  out.push_back({name("attn_output"), width, query});
  out.push_back({name("ffn_norm"), 1, width, true});
  out.push_back({name("ffn_gate"), hidden, width});
  out.push_back({name("ffn_up"), hidden, width});
  out.push_back({name("ffn_down"), width, hidden});
}

}  // namespace

std::vector<TensorShape> TensorLayout(const ModelConfig& config) {
  const int64_t vocabulary = config.vocabulary_size;
  const int64_t width = config.embedding_size;
  std::vector<TensorShape> out;
  out.push_back({"token_embd.weight", vocabulary, width});
  for (int i = 0; i < config.num_layers; ++i) AddLayer(config, i, out);
  out.push_back({"output_norm.weight", 1, width, true});
  if (!config.tied_embedding) {
    out.push_back({"output.weight", vocabulary, width});
  }
  return out;
}

}  // namespace millrace::backends
