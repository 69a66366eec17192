#include "tests/testing/gguf_writer.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "backends/model_file/gguf_weight_types.h"
#include "backends/model_file/registry.h"
#include "backends/model_file/tensor_layout.h"
#include "backends/quant/blocks.h"
#include "backends/quant/half.h"

namespace millrace::testing {
namespace {

using backends::FloatToBfloat16;
using backends::FloatToHalf;
using backends::HalfToFloat;
using backends::kBlockSize;
using backends::ModelConfig;
using backends::TensorShape;

constexpr absl::string_view kChatMl =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

template <typename T>
void Append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

float LargestMagnitude(const float* x) {
  return std::abs(*std::max_element(x, x + kBlockSize, [](float a, float b) {
    return std::abs(a) < std::abs(b);
  }));
}

// The nearest q with d * q close to x, from lo to hi.
int Level(float x, float d, int lo, int hi) {
  const int q = d == 0 ? 0 : static_cast<int>(std::lround(x / d));
  return std::clamp(q, lo, hi);
}

backends::BlockQ8_0 QuantizeQ8_0(const float* x) {
  backends::BlockQ8_0 block;
  block.d = FloatToHalf(LargestMagnitude(x) / 127);
  const float d = HalfToFloat(block.d);
  for (int i = 0; i < kBlockSize; ++i) block.qs[i] = Level(x[i], d, -127, 127);
  return block;
}

backends::BlockQ4_0 QuantizeQ4_0(const float* x) {
  backends::BlockQ4_0 block;
  block.d = FloatToHalf(LargestMagnitude(x) / 8);
  const float d = HalfToFloat(block.d);
  for (int i = 0; i < kBlockSize / 2; ++i) {
    const int low = Level(x[i], d, -8, 7) + 8;
    const int high = Level(x[i + kBlockSize / 2], d, -8, 7) + 8;
    block.qs[i] = low | high << 4;
  }
  return block;
}

backends::BlockQ4_1 QuantizeQ4_1(const float* x) {
  const auto [min, max] = std::minmax_element(x, x + kBlockSize);
  backends::BlockQ4_1 block;
  block.d = FloatToHalf((*max - *min) / 15);
  block.m = FloatToHalf(*min);
  const float d = HalfToFloat(block.d), m = HalfToFloat(block.m);
  for (int i = 0; i < kBlockSize / 2; ++i) {
    const int low = Level(x[i] - m, d, 0, 15);
    const int high = Level(x[i + kBlockSize / 2] - m, d, 0, 15);
    block.qs[i] = low | high << 4;
  }
  return block;
}

// A printable character for each byte, as byte-level BPE has it: the byte
// itself if it can be seen, else one from U+0100 on.
std::vector<std::string> ByteAlphabet() {
  std::vector<std::string> out;
  int next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool visible = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
    const int code = visible ? b : next++;
    if (code < 0x80) {
      out.push_back(std::string(1, code));
    } else {
      out.push_back({static_cast<char>(0xc0 | code >> 6),
                     static_cast<char>(0x80 | (code & 0x3f))});
    }
  }
  return out;
}

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<std::string> merges;
};

constexpr int32_t kNormal = 1, kControl = 3, kUnused = 5;

// Merges of English, each of tokens that are there before it. U+0120 is the
// space.
constexpr const char* kMerges[] = {
    "Ġ t", "h e", "i n", "Ġt he", "r e", "o n", "Ġ a",  "e r",
    "a t", "Ġ s", "o u", "n d",   "i s", "e n", "in g", "e d",
    "Ġ w", "i t", "o r", "Ġa nd", "Ġ o", "a n", "l l",  "Ġ h",
};

void Add(Vocabulary& out, std::string token, int32_t type) {
  out.tokens.push_back(std::move(token));
  out.types.push_back(type);
}

Vocabulary MakeVocabulary(int size) {
  Vocabulary out;
  for (const char* token : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    Add(out, token, kControl);
  }
  for (const std::string& token : ByteAlphabet()) Add(out, token, kNormal);
  for (const absl::string_view merge : kMerges) {
    if (static_cast<int>(out.tokens.size()) >= size) break;
    const size_t space = merge.find(' ');
    out.merges.emplace_back(merge);
    Add(out, absl::StrCat(merge.substr(0, space), merge.substr(space + 1)),
        kNormal);
  }
  while (static_cast<int>(out.tokens.size()) < size) {
    Add(out, absl::StrCat("<|unused_", out.tokens.size(), "|>"), kUnused);
  }
  out.tokens.resize(size);  // fewer than all bytes, if so few were asked for
  out.types.resize(size);
  return out;
}

ModelConfig ConfigOf(const TinyLlamaOptions& options) {
  ModelConfig config;
  config.num_layers = options.num_layers;
  config.num_heads = options.num_heads;
  config.num_kv_heads = options.num_kv_heads;
  config.head_dim = options.head_dim;
  config.embedding_size = options.embedding_size;
  config.feed_forward_size = options.feed_forward_size;
  config.vocabulary_size = options.vocabulary_size;
  config.tied_embedding = options.tied_embedding;
  return config;
}

void AddModelKeys(const TinyLlamaOptions& options, GgufImage& image) {
  image.Set("general.architecture", GgufString("llama"));
  image.Set("general.name", GgufString("tiny"));
  image.Set("llama.block_count", GgufU32(options.num_layers));
  image.Set("llama.context_length", GgufU32(options.trained_context));
  image.Set("llama.embedding_length", GgufU32(options.embedding_size));
  image.Set("llama.feed_forward_length", GgufU32(options.feed_forward_size));
  image.Set("llama.attention.head_count", GgufU32(options.num_heads));
  image.Set("llama.attention.head_count_kv", GgufU32(options.num_kv_heads));
  image.Set("llama.attention.key_length", GgufU32(options.head_dim));
  image.Set("llama.attention.value_length", GgufU32(options.head_dim));
  image.Set("llama.rope.dimension_count", GgufU32(options.head_dim));
  image.Set("llama.rope.freq_base", GgufF32(options.rope_base));
  image.Set("llama.attention.layer_norm_rms_epsilon",
            GgufF32(options.rms_epsilon));
  image.Set("llama.vocab_size", GgufU32(options.vocabulary_size));
}

void AddTokenizerKeys(const TinyLlamaOptions& options, GgufImage& image) {
  const Vocabulary vocabulary = MakeVocabulary(options.vocabulary_size);
  image.Set("tokenizer.ggml.model", GgufString("gpt2"));
  image.Set("tokenizer.ggml.pre", GgufString(options.pre_tokenizer));
  image.Set("tokenizer.ggml.tokens", GgufStrings(vocabulary.tokens));
  image.Set("tokenizer.ggml.token_type", GgufI32s(vocabulary.types));
  image.Set("tokenizer.ggml.merges", GgufStrings(vocabulary.merges));
  image.Set("tokenizer.ggml.unknown_token_id", GgufU32(0));
  image.Set("tokenizer.ggml.bos_token_id", GgufU32(1));
  image.Set("tokenizer.ggml.eos_token_id", GgufU32(2));
  image.Set("tokenizer.ggml.add_bos_token", GgufBool(options.add_bos));
  image.Set("tokenizer.ggml.add_space_prefix", GgufBool(false));
  if (options.sink_id) {
    image.Set("millrace.sink_token_id", GgufU32(*options.sink_id));
  }
  image.Set("tokenizer.chat_template",
            GgufString(options.chat_template.empty()
                           ? kChatMl
                           : absl::string_view(options.chat_template)));
}

// "blk.1.ffn_down.weight" is asked for as blk.1.ffn_down, then as ffn_down.
WeightType TypeOf(const TinyLlamaOptions& options, const TensorShape& shape) {
  if (shape.is_norm) return WeightType::kF32;
  const std::string name(absl::StripSuffix(shape.name, ".weight"));
  const std::string part = name.substr(name.rfind('.') + 1);
  for (const std::string& key : {name, part}) {
    const auto found = options.weight_types.find(key);
    if (found != options.weight_types.end()) return found->second;
  }
  return absl::StartsWith(name, "blk.") ? options.matrices : options.embeddings;
}

// Keeps activations near 1: a matrix maps values of variance 1 to such values.
// Rows of the embedding have a length at which logits spread over a few nats.
std::vector<float> RandomWeights(const TensorShape& shape,
                                 RandomValues& random) {
  std::vector<float> values(shape.rows * shape.cols);
  const float scale = absl::StartsWith(shape.name, "blk.")
                          ? std::sqrt(3.0f / static_cast<float>(shape.cols))
                          : 4.0f / std::sqrt(static_cast<float>(shape.cols));
  for (float& value : values) {
    value = shape.is_norm ? 1 + 0.2f * random.Value() : scale * random.Value();
  }
  return values;
}

void AddTensors(const TinyLlamaOptions& options, GgufImage& image) {
  RandomValues random(options.seed);
  for (const TensorShape& shape : backends::TensorLayout(ConfigOf(options))) {
    GgufImage::Tensor tensor;
    tensor.name = shape.name;
    tensor.dimensions.push_back(shape.cols);
    if (!shape.is_norm) tensor.dimensions.push_back(shape.rows);
    const WeightType type = TypeOf(options, shape);
    tensor.type = backends::GgufNumber(type);
    tensor.data = Quantize(type, RandomWeights(shape, random));
    image.tensors.push_back(std::move(tensor));
  }
}

}  // namespace

uint64_t RandomValues::Bits() {  // splitmix64
  uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

float RandomValues::Value() {
  return static_cast<float>(Bits() >> 40) * 0x1p-23f - 1;
}

std::string Quantize(WeightType type, const std::vector<float>& values) {
  std::string out;
  for (size_t i = 0; i < values.size(); i += BlockElements(type)) {
    const float* x = &values[i];
    switch (type) {
      case WeightType::kF32:
        Append(out, *x);
        break;
      case WeightType::kF16:
        Append(out, FloatToHalf(*x));
        break;
      case WeightType::kBF16:
        Append(out, FloatToBfloat16(*x));
        break;
      case WeightType::kQ8_0:
        Append(out, QuantizeQ8_0(x));
        break;
      case WeightType::kQ4_0:
        Append(out, QuantizeQ4_0(x));
        break;
      case WeightType::kQ4_1:
        Append(out, QuantizeQ4_1(x));
        break;
    }
  }
  return out;
}

GgufImage TinyLlama(const TinyLlamaOptions& options) {
  GgufImage image;
  AddModelKeys(options, image);
  AddTokenizerKeys(options, image);
  AddTensors(options, image);
  return image;
}

std::string WriteTestFile(absl::string_view bytes, absl::string_view suffix) {
  static std::atomic<int> next{0};
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string path =
      absl::StrCat(folder == nullptr ? "/tmp" : folder, "/model-", getpid(),
                   "-", next++, suffix);
  std::ofstream(path, std::ios::binary).write(bytes.data(), bytes.size());
  return path;
}

std::string WriteTinyLlama(const TinyLlamaOptions& options) {
  return WriteTestFile(TinyLlama(options).Serialize());
}

std::unique_ptr<const backends::ModelFile> OpenTinyLlama(
    const TinyLlamaOptions& options) {
  const std::string path = WriteTinyLlama(options);
  auto file = backends::OpenModelFile(path, {});
  unlink(path.c_str());
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", file.status().ToString().c_str());
    std::abort();
  }
  return *std::move(file);
}

}  // namespace millrace::testing
