#include "backends/model_file/gguf_llama.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "backends/model_file/invalid_file.h"

namespace millrace::backends {
namespace {

constexpr int kMostLayers = 512;
constexpr int kMostHeads = 1024;
constexpr int kLargestHead = 1024;
constexpr int kLargestEmbedding = 1 << 17;
constexpr int kLargestFeedForward = 1 << 20;
constexpr int64_t kLongestContext = int64_t{1} << 40;
constexpr uint64_t kLongestName = 4096;

void CheckGeneral(GgufMetadata& metadata) {
  const std::string type =
      metadata.StringOr("general.type", "model", kLongestName);
  if (metadata.ok() && type != "model") {
    metadata.Fail("general.type", absl::StrCat("is '", Printable(type),
                                               "'; only 'model' is supported"));
  }
  const std::string architecture =
      metadata.String("general.architecture", kLongestName);
  if (metadata.ok() && architecture != "llama") {
    metadata.Fail("general.architecture",
                  absl::StrCat("is '", Printable(architecture),
                               "'; only 'llama' is supported"));
  }
  metadata.IntOr("general.quantization_version", 2, 2, 2);
  metadata.IntOr("split.count", 0, 0, 1);  // parts of a model: give it whole
}

void ReadSizes(GgufMetadata& metadata, ModelConfig& config) {
  config.num_layers = metadata.Int("llama.block_count", 1, kMostLayers);
  config.trained_context =
      metadata.Int("llama.context_length", 1, kLongestContext);
  config.embedding_size =
      metadata.Int("llama.embedding_length", 1, kLargestEmbedding);
  config.feed_forward_size =
      metadata.Int("llama.feed_forward_length", 1, kLargestFeedForward);
  config.num_heads = metadata.Int("llama.attention.head_count", 1, kMostHeads);
  config.num_kv_heads = metadata.IntOr("llama.attention.head_count_kv",
                                       config.num_heads, 1, kMostHeads);
  config.vocabulary_size =
      metadata.ArrayCount("tokenizer.ggml.tokens", 1, kLargestVocabulary);
  config.rms_epsilon =
      metadata.Float("llama.attention.layer_norm_rms_epsilon", 1e-12, 1e-1);
  config.rope_base = metadata.FloatOr("llama.rope.freq_base", 1e4, 1, 1e12);
}

void ReadHeadSize(GgufMetadata& metadata, ModelConfig& config) {
  if (!metadata.ok()) return;
  constexpr absl::string_view kKeyLength = "llama.attention.key_length";
  if (!metadata.Has(kKeyLength) &&
      config.embedding_size % config.num_heads != 0) {
    return metadata.Fail(
        "llama.embedding_length",
        absl::StrCat("is ", config.embedding_size, ", no multiple of the ",
                     config.num_heads, " heads"));
  }
  config.head_dim = metadata.IntOr(
      kKeyLength, config.embedding_size / config.num_heads, 1, kLargestHead);
  // Values as wide as keys, and all of them rotated.
  metadata.IntOr("llama.attention.value_length", config.head_dim,
                 config.head_dim, config.head_dim);
  metadata.IntOr("llama.rope.dimension_count", config.head_dim, config.head_dim,
                 config.head_dim);
}

void CheckProportions(GgufMetadata& metadata, const ModelConfig& config) {
  if (!metadata.ok()) return;
  if (config.head_dim % 2 != 0 || config.head_dim > kLargestHead) {
    metadata.Fail("llama.embedding_length",
                  absl::StrCat("gives heads of ", config.head_dim,
                               " values; even numbers up to ", kLargestHead,
                               " are supported"));
  }
  if (config.num_heads % config.num_kv_heads != 0) {
    metadata.Fail(
        "llama.attention.head_count_kv",
        absl::StrCat("is ", config.num_kv_heads, ", no divisor of the ",
                     config.num_heads, " query heads"));
  }
}

// Keys that may only say what is so anyway.
void CheckNeutral(GgufMetadata& metadata, const ModelConfig& config) {
  metadata.IntOr("llama.vocab_size", config.vocabulary_size,
                 config.vocabulary_size, config.vocabulary_size);
  const std::string scaling =
      metadata.StringOr("llama.rope.scaling.type", "none", kLongestName);
  if (metadata.ok() && scaling != "none") {
    metadata.Fail("llama.rope.scaling.type",
                  absl::StrCat("is '", Printable(scaling),
                               "'; only 'none' is supported"));
  }
  metadata.FloatOr("llama.rope.scaling.factor", 1, 1, 1);
  metadata.FloatOr("llama.rope.scale_linear", 1, 1, 1);
  metadata.Ignore("llama.rope.scaling.original_context_length");
  metadata.Ignore("llama.rope.scaling.finetuned");
  metadata.IntOr("llama.expert_count", 0, 0, 0);
  metadata.IntOr("llama.expert_used_count", 0, 0, 0);
  metadata.IntOr("llama.attention.sliding_window", 0, 0, 0);
  if (!metadata.BoolOr("llama.attention.causal", true)) {
    metadata.Fail("llama.attention.causal",
                  "is false; only causal attention is supported");
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ReadLlamaConfig(GgufMetadata& metadata) {
  ModelConfig config;
  config.architecture = "llama";
  CheckGeneral(metadata);
  config.name = metadata.StringOr("general.name", "", kLongestName);
  ReadSizes(metadata, config);
  ReadHeadSize(metadata, config);
  CheckProportions(metadata, config);
  CheckNeutral(metadata, config);
  metadata.RefuseUnread("llama.");
  if (!metadata.ok()) return metadata.status();
  return config;
}

}  // namespace millrace::backends
