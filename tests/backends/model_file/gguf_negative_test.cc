// Every way in which a GGUF file can be wrong: one row for each, with the
// change that makes it wrong and the words in which it is refused.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backends/model_file/registry.h"
#include "gmock/gmock.h"
#include "tests/backends/model_file/model_file_matchers.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends {
namespace {

using namespace millrace::testing;  // GgufImage and the makers of its values
using ::testing::TestParamInfo;
using ::testing::TestWithParam;

struct Row {
  std::string name;
  std::function<void(GgufImage&)> change;
  std::vector<std::string> words;
};

void PrintTo(const Row& row, std::ostream* out) { *out << row.name; }

constexpr uint64_t kMinusOne = std::numeric_limits<uint64_t>::max();
constexpr uint32_t kArray = 9;
const float kNan = std::nanf("");
const float kInfinity = std::numeric_limits<float>::infinity();

absl::Status Refusal(absl::string_view bytes) {
  return OpenModelFile(WriteTestFile(bytes), {}).status();
}

// ---- Shorthands for changes ----

std::function<void(GgufImage&)> Set(std::string key, GgufValue value) {
  return [=](GgufImage& image) { image.Set(key, value); };
}

std::function<void(GgufImage&)> Llama(std::string key, GgufValue value) {
  return Set("llama." + key, value);
}

std::function<void(GgufImage&)> Tokenizer(std::string key, GgufValue value) {
  return Set("tokenizer.ggml." + key, value);
}

std::function<void(GgufImage&)> Remove(std::string key) {
  return [=](GgufImage& image) { image.Remove(key); };
}

// A key as the file holds it, with bytes that may lie.
std::function<void(GgufImage&)> RawKey(std::string name, uint32_t type,
                                       std::string bytes) {
  return [=](GgufImage& image) { image.keys.push_back({name, {type, bytes}}); };
}

std::function<void(GgufImage&)> Tensor(
    std::string name, std::function<void(GgufImage::Tensor&)> change) {
  return [=](GgufImage& image) { change(image.FindTensor(name)); };
}

std::function<void(GgufImage&)> Shape(std::vector<uint64_t> dimensions) {
  return Tensor("blk.1.attn_q.weight", [=](GgufImage::Tensor& tensor) {
    tensor.dimensions = dimensions;
  });
}

// Makes the first tensor's weights those of a type, with bits at a byte.
std::function<void(GgufImage&)> Bits(WeightType type, size_t at, uint32_t bits,
                                     int bytes) {
  return [=](GgufImage& image) {
    image = TinyLlama({.embeddings = type});
    image.tensors[0].data.replace(at, bytes, LittleEndian(bits, bytes));
  };
}

std::string Array(uint32_t type, uint64_t count, std::string elements = "") {
  return LittleEndian(type, 4) + LittleEndian(count, 8) + elements;
}

std::vector<std::string> Tokens(int count) {
  std::vector<std::string> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(absl::StrCat("t", i));
  return tokens;
}

std::vector<std::string> TokensWith(int index, std::string token) {
  std::vector<std::string> tokens = Tokens(320);
  tokens[index] = token;
  return tokens;
}

// ---- The rows ----

const std::vector<Row>& HeaderRows() {
  static const auto& rows = *new std::vector<Row>{
      {"BadMagic",
       [](GgufImage& i) { i.magic = "GGML"; },
       {"byte 0: magic", "known are: gguf"}},
      {"Version0",
       [](GgufImage& i) { i.version = 0; },
       {"byte 4: version is 0; versions 2 and 3 are supported"}},
      {"Version1", [](GgufImage& i) { i.version = 1; }, {"version is 1;"}},
      {"Version4", [](GgufImage& i) { i.version = 4; }, {"version is 4;"}},
      {"BigEndian",
       [](GgufImage& i) { i.version = 0x03000000; },
       {"byte 4: version", "big-endian"}},
      {"MinusOneTensors",
       [](GgufImage& i) { i.num_tensors = kMinusOne; },
       {"byte 8: number of tensors is 18446744073709551615, too many"}},
      {"MinusOneKeys",
       [](GgufImage& i) { i.num_keys = kMinusOne; },
       {"byte 16: number of keys is 18446744073709551615, too many"}},
      {"TensorsOverflowTimesTheirSize",
       [](GgufImage& i) { i.num_tensors = kMinusOne / 32 + 2; },
       {"number of tensors", "too many"}},
      {"MoreKeysThanSupported",
       [](GgufImage& i) { i.num_keys = 4097; },
       {"number of keys is 4097; at most 4096 are supported"}},
      {"MoreTensorsThanSupported",
       [](GgufImage& i) {
         i.num_tensors = 16385;
         i.tensors[0].data.resize(1 << 20);  // as many bytes as they need
       },
       {"number of tensors is 16385; at most 16384 are supported"}},
      {"OneKeyTooFew",
       [](GgufImage& i) { i.num_keys = i.keys.size() - 1; },
       {}},
      {"OneKeyTooMany",
       [](GgufImage& i) { i.num_keys = i.keys.size() + 1; },
       {}},
      {"OneTensorTooFew",
       [](GgufImage& i) { i.num_tensors = i.tensors.size() - 1; },
       {}},
      {"OneTensorTooMany",
       [](GgufImage& i) { i.num_tensors = i.tensors.size() + 1; },
       {}},
      {"NoTensors",
       [](GgufImage& i) { i.tensors.clear(); },
       {"tensor 'token_embd.weight' is missing"}},
  };
  return rows;
}

const std::vector<Row>& KeyRows() {
  static const auto& rows = *new std::vector<Row>{
      {"EmptyKey",
       RawKey("", 4, LittleEndian(1, 4)),
       {"name of a key is empty"}},
      {"KeyTooLong",
       RawKey(std::string(65536, 'k'), 4, LittleEndian(1, 4)),
       {"name of a key has 65536 bytes; at most 65535 are allowed"}},
      {"UnknownType",
       RawKey("x", 13, LittleEndian(1, 4)),
       {"key 'x' has the unknown type 13"}},
      {"TypeMinusOne",
       RawKey("x", 0xffffffff, LittleEndian(1, 4)),
       {"key 'x' has the unknown type 4294967295"}},
      {"UnknownElementType",
       RawKey("x", kArray, Array(13, 1, "aaaa")),
       {"key 'x' has the unknown type 13"}},
      {"DuplicateKey",
       RawKey("general.name", 8, GgufBytes("again")),
       {"key 'general.name' appears twice"}},
      {"UnprintableKeyIsEscaped",
       RawKey("a\x01\n\xff", 13, ""),
       {"key 'a\\x01\\x0a\\xff'"}},
      {"Alignment13",
       Set("general.alignment", GgufU32(13)),
       {"key 'general.alignment' is 13; powers of two"}},
      {"Alignment0",
       Set("general.alignment", GgufU32(0)),
       {"key 'general.alignment' is 0"}},
      {"Alignment4",
       Set("general.alignment", GgufU32(4)),
       {"key 'general.alignment' is 4"}},
      {"AlignmentTooLarge",
       Set("general.alignment", GgufU32(1u << 31)),
       {"key 'general.alignment' is 2147483648"}},
      {"AlignmentOfAnotherType",
       Set("general.alignment", GgufU64(32)),
       {"key 'general.alignment' must be an unsigned 32-bit number"}},
      {"AlignmentOfAnArray",
       Set("general.alignment", GgufI32s({32})),
       {"key 'general.alignment' must be"}},
      {"AlignmentNotApplied",
       Set("general.alignment", GgufU32(4096)),
       {"of the data and must start at"}},
      {"StringBeyondTheFile",
       RawKey("x", 8, LittleEndian(1 << 30, 8)),
       {"key 'x' needs 1073741824 bytes"}},
      {"StringOfMinusOneBytes",
       RawKey("x", 8, LittleEndian(kMinusOne, 8)),
       {"key 'x' needs 18446744073709551615 bytes"}},
      {"ArrayOf2To63",
       RawKey("x", kArray, Array(0, uint64_t{1} << 63)),
       {"key 'x' has 9223372036854775808 elements, too many"}},
      {"ArrayWhoseBytesWrap",
       RawKey("x", kArray, Array(10, (uint64_t{1} << 61) + 1)),
       {"key 'x' has 2305843009213693953 elements, too many"}},
      {"ArrayOfStringsBeyondTheFile",
       RawKey("x", kArray, Array(8, 1 << 20)),
       {"key 'x' has 1048576 elements, too many"}},
      {"NestedArrays",
       RawKey("x", kArray, Array(9, 1, Array(0, 1, "a"))),
       {"key 'x' is an array of arrays"}},
      {"NoArchitecture",
       Remove("general.architecture"),
       {"key 'general.architecture' is missing"}},
      {"AnotherArchitecture",
       Set("general.architecture", GgufString("qwen2")),
       {"key 'general.architecture' is 'qwen2'; only 'llama' is supported"}},
      {"ArchitectureOfAnotherType",
       Set("general.architecture", GgufU32(1)),
       {"key 'general.architecture' must be a string"}},
      {"AnAdapter",
       Set("general.type", GgufString("adapter")),
       {"key 'general.type' is 'adapter'; only 'model'"}},
      {"OldQuantization",
       Set("general.quantization_version", GgufU32(1)),
       {"key 'general.quantization_version' is 1"}},
      {"APartOfAModel",
       Set("split.count", GgufU32(3)),
       {"key 'split.count' is 3"}},
      {"NameIsNoUtf8",
       Set("general.name", GgufString("\xff")),
       {"key 'general.name' is not valid UTF-8"}},
  };
  return rows;
}

const std::vector<Row>& TensorRows() {
  static const auto& rows = *new std::vector<Row>{
      {"NameTooLong",
       Tensor("output_norm.weight",
              [](auto& t) { t.name = std::string(65, 'n'); }),
       {"name of a tensor has 65 bytes; 1 to 64 are allowed"}},
      {"NoName",
       Tensor("output_norm.weight", [](auto& t) { t.name = ""; }),
       {"name of a tensor has 0 bytes"}},
      {"DuplicateName",
       Tensor("blk.0.ffn_up.weight",
              [](auto& t) { t.name = "blk.0.ffn_gate.weight"; }),
       {"tensor 'blk.0.ffn_gate.weight' appears twice"}},
      {"NoDimensions",
       Shape({}),
       {"tensor 'blk.1.attn_q.weight' has 0 dimensions; 1 to 4"}},
      {"FiveDimensions", Shape({64, 64, 1, 1, 1}), {"has 5 dimensions"}},
      {"ThreeDimensions",
       Shape({64, 32, 2}),
       {"has the shape [64, 32, 2, 1]; by the file's keys it must be [64, "
        "64]"}},
      {"Transposed",
       Tensor("blk.1.ffn_up.weight",
              [](auto& t) {
                t.dimensions = {96, 64};
              }),
       {"has the shape [96, 64, 1, 1]", "must be [64, 96]"}},
      {"ZeroDimension", Shape({64, 0}), {"has a dimension of 0"}},
      {"DimensionOfMinusOne", Shape({kMinusOne, 1}), {"more elements than"}},
      {"ElementsWrapTo0",
       Shape({uint64_t{1} << 32, uint64_t{1} << 32}),
       {"more elements than 2^48"}},
      {"StrideWraps",
       Shape({(uint64_t{1} << 42) + 1, 64, 64}),
       {"more elements than 2^48"}},
      {"BytesBeyondTheFile",
       Shape({uint64_t{1} << 24, uint64_t{1} << 23}),
       {"bytes from byte", "and the file has"}},
      {"UnsupportedType",
       Tensor("blk.1.attn_q.weight", [](auto& t) { t.type = 12; }),
       {"tensor 'blk.1.attn_q.weight' has weights of type Q4_K; supported are "
        "F32, F16, BF16, Q8_0, Q4_0, Q4_1"}},
      {"RemovedType",
       Tensor("blk.1.attn_q.weight", [](auto& t) { t.type = 4; }),
       {"has weights of type number 4;"}},
      {"TypeMinusOne",
       Tensor("blk.1.attn_q.weight", [](auto& t) { t.type = 0xffffffff; }),
       {"has weights of type number 4294967295"}},
      {"RowIsNotWholeBlocks",
       Tensor("blk.1.attn_q.weight",
              [](auto& t) {
                t.type = 8;
                t.dimensions = {63, 64};
              }),
       {"has rows of 63 values; Q8_0 needs a multiple of 32"}},
      {"NormIsNotF32",
       Tensor("output_norm.weight",
              [](auto& t) {
                t.type = 1;
                t.data.resize(128);
              }),
       {"tensor 'output_norm.weight' is of type F16", "must be F32"}},
      {"OffsetNotAligned",
       Tensor("blk.0.attn_q.weight", [](auto& t) { t.offset = 12345; }),
       {"tensor 'blk.0.attn_q.weight' starts at byte 12345 of the data"}},
      {"OffsetBeyondTheFile",
       Tensor("blk.0.attn_q.weight",
              [](auto& t) { t.offset = uint64_t{1} << 40; }),
       {"starts at byte 1099511627776"}},
      {"OffsetMinus32",
       Tensor("blk.0.attn_q.weight", [](auto& t) { t.offset = -32; }),
       {"starts at byte 18446744073709551584"}},
      {"Overlapping",
       Tensor("blk.0.attn_q.weight", [](auto& t) { t.offset = 0; }),
       {"starts at byte 0 of the data and must start at"}},
      {"SumOfSizesWraps",
       [](GgufImage& i) {
         for (const char* name : {"blk.0.ffn_up.weight", "blk.1.ffn_up.weight"})
           i.FindTensor(name).dimensions = {0x7FFFFFFFFFFFFFC0};
       },
       {"more elements than"}},
      {"NotEnoughData",
       [](GgufImage& i) { i.tensors.back().data.resize(32); },
       {"tensor 'output_norm.weight' needs 256 bytes from byte"}},
      {"AGap",
       [](GgufImage& i) { i.tensors[1].data += std::string(64, '\0'); },
       {"of the data and must start at"}},
      {"Unknown",
       [](GgufImage& i) {
         i.tensors.push_back({"blk.0.attn_q.bias",
                              {64},
                              0,
                              std::string(256, '\0'),
                              std::nullopt});
       },
       {"tensor 'blk.0.attn_q.bias' is no part of a 'llama' model of 2"}},
      {"ScaledRotation",
       [](GgufImage& i) {
         i.tensors.push_back({"rope_freqs.weight",
                              {8},
                              0,
                              std::string(32, '\0'),
                              std::nullopt});
       },
       {"tensor 'rope_freqs.weight' is no part"}},
      {"Missing",
       [](GgufImage& i) { i.tensors.erase(i.tensors.begin() + 3); },
       {"tensor 'blk.0.attn_k.weight' is missing"}},
  };
  return rows;
}

const std::vector<Row>& ShapeRows() {
  static const auto& rows = *new std::vector<Row>{
      {"NoLayers",
       Llama("block_count", GgufU32(0)),
       {"key 'llama.block_count' is 0; 1 to 512 are supported"}},
      {"TooManyLayers",
       Llama("block_count", GgufU32(513)),
       {"key 'llama.block_count' is 513"}},
      {"NegativeLayers",
       Llama("block_count", GgufI32(-1)),
       {"key 'llama.block_count' is -1"}},
      {"LayersAsText",
       Llama("block_count", GgufString("2")),
       {"key 'llama.block_count' must be an integer"}},
      {"LayersAsArray",
       Llama("block_count", GgufI32s({2, 2})),
       {"key 'llama.block_count' is an array"}},
      {"LayersMissing",
       Remove("llama.block_count"),
       {"key 'llama.block_count' is missing"}},
      {"OneLayerMore",
       Llama("block_count", GgufU32(3)),
       {"tensor 'blk.2.attn_norm.weight' is missing"}},
      {"OneLayerFewer",
       Llama("block_count", GgufU32(1)),
       {"tensor 'blk.1.attn_norm.weight' is no part"}},
      {"NoHeads",
       Llama("attention.head_count", GgufU32(0)),
       {"key 'llama.attention.head_count' is 0"}},
      {"NoKvHeads",
       Llama("attention.head_count_kv", GgufU32(0)),
       {"key 'llama.attention.head_count_kv' is 0"}},
      {"KvHeadsDoNotDivideHeads",
       Llama("attention.head_count_kv", GgufU32(3)),
       {"key 'llama.attention.head_count_kv' is 3, no divisor of the 4"}},
      {"KvHeadsByLayer",
       Llama("attention.head_count_kv", GgufI32s({2, 1})),
       {"key 'llama.attention.head_count_kv' is an array"}},
      {"OddHead",
       [](GgufImage& i) {
         for (const char* key :
              {"llama.attention.key_length", "llama.attention.value_length",
               "llama.rope.dimension_count"})
           i.Set(key, GgufU32(15));
       },
       {"gives heads of 15 values; even numbers"}},
      {"ValuesNarrowerThanKeys",
       Llama("attention.value_length", GgufU32(8)),
       {"key 'llama.attention.value_length' is 8; 16 to 16"}},
      {"HalfOfTheHeadRotated",
       Llama("rope.dimension_count", GgufU32(8)),
       {"key 'llama.rope.dimension_count' is 8; 16 to 16"}},
      {"WidthNotDivisibleByHeads",
       [](GgufImage& i) {
         i.Remove("llama.attention.key_length");
         i.Set("llama.attention.head_count", GgufU32(6));
       },
       {"key 'llama.embedding_length' is 64, no multiple of the 6 heads"}},
      {"WidthTooLarge",
       Llama("embedding_length", GgufU32(0xffffffff)),
       {"key 'llama.embedding_length' is 4294967295"}},
      {"NoFeedForward",
       Llama("feed_forward_length", GgufU32(0)),
       {"key 'llama.feed_forward_length' is 0"}},
      {"Context0",
       Llama("context_length", GgufU32(0)),
       {"key 'llama.context_length' is 0"}},
      {"ContextHuge",
       Llama("context_length", GgufU64(kMinusOne)),
       {"key 'llama.context_length' is 9223372036854775807"}},
      {"RotaryBase0",
       Llama("rope.freq_base", GgufF32(0)),
       {"key 'llama.rope.freq_base' is 0"}},
      {"RotaryBaseNegative",
       Llama("rope.freq_base", GgufF32(-1e4)),
       {"key 'llama.rope.freq_base' is -10000"}},
      {"RotaryBaseNan",
       Llama("rope.freq_base", GgufF32(kNan)),
       {"key 'llama.rope.freq_base' is nan"}},
      {"RotaryBaseInfinite",
       Llama("rope.freq_base", GgufF32(kInfinity)),
       {"key 'llama.rope.freq_base' is inf"}},
      {"RotaryBaseAsInteger",
       Llama("rope.freq_base", GgufU32(10000)),
       {"key 'llama.rope.freq_base' must be a floating-point number"}},
      {"Epsilon0",
       Llama("attention.layer_norm_rms_epsilon", GgufF32(0)),
       {"layer_norm_rms_epsilon' is 0"}},
      {"EpsilonNan",
       Llama("attention.layer_norm_rms_epsilon", GgufF32(kNan)),
       {"layer_norm_rms_epsilon' is nan"}},
      {"EpsilonNegative",
       Llama("attention.layer_norm_rms_epsilon", GgufF32(-1e-5f)),
       {"layer_norm_rms_epsilon' is -1e-05"}},
      {"ScaledPositions",
       Llama("rope.scaling.type", GgufString("yarn")),
       {"key 'llama.rope.scaling.type' is 'yarn'; only 'none'"}},
      {"ScaledPositionsByFactor",
       Llama("rope.scaling.factor", GgufF32(4)),
       {"key 'llama.rope.scaling.factor' is 4"}},
      {"ScaledPositionsOfOldFiles",
       Llama("rope.scale_linear", GgufF32(2)),
       {"key 'llama.rope.scale_linear' is 2"}},
      {"Experts",
       Llama("expert_count", GgufU32(8)),
       {"key 'llama.expert_count' is 8"}},
      {"SlidingWindow",
       Llama("attention.sliding_window", GgufU32(4096)),
       {"key 'llama.attention.sliding_window' is 4096"}},
      {"NotCausal",
       Llama("attention.causal", GgufBool(false)),
       {"key 'llama.attention.causal' is false"}},
      {"UnknownKeyOfTheArchitecture",
       Llama("logit_scale", GgufF32(0.5f)),
       {"key 'llama.logit_scale' is not supported, and ignoring it could"}},
      {"VocabularyOfAnotherSize",
       Llama("vocab_size", GgufU32(321)),
       {"key 'llama.vocab_size' is 321; 320 to 320"}},
  };
  return rows;
}

const std::vector<Row>& TokenizerRows() {
  static const auto& rows = *new std::vector<Row>{
      {"NoModel", Remove("tokenizer.ggml.model"),
       {"key 'tokenizer.ggml.model' is missing"}},
      {"AnotherModel", Tokenizer("model", GgufString("llama")),
       {"key 'tokenizer.ggml.model' is 'llama'; only 'gpt2'"}},
      {"NoPreTokenizer", Remove("tokenizer.ggml.pre"),
       {"key 'tokenizer.ggml.pre' is missing"}},
      {"NoTokens", Remove("tokenizer.ggml.tokens"),
       {"key 'tokenizer.ggml.tokens' is missing"}},
      {"TokensAsNumbers", Tokenizer("tokens", GgufI32s(std::vector<int>(320))),
       {"key 'tokenizer.ggml.tokens' must be an array of strings"}},
      {"TokensAsOneString", Tokenizer("tokens", GgufString("abc")),
       {"key 'tokenizer.ggml.tokens' must be an array"}},
      {"MoreTokensThanEmbeddingRows",
       [](GgufImage& i) {
         i.Remove("llama.vocab_size");
         i.Set("tokenizer.ggml.tokens", GgufStrings(Tokens(321)));
       },
       {"tensor 'token_embd.weight' has the shape [64, 320, 1, 1]",
        "must be [64, 321]"}},
      {"TooManyTokens",
       Tokenizer("tokens",
                 GgufStrings(std::vector<std::string>(256 * 1024 + 1))),
       {"key 'tokenizer.ggml.tokens' has 262145 elements; 1 to 262144"}},
      {"EmptyToken", Tokenizer("tokens", GgufStrings(TokensWith(7, ""))),
       {"key 'tokenizer.ggml.tokens' has entry 7 '', of 0 bytes"}},
      {"TokenTooLong",
       Tokenizer("tokens", GgufStrings(TokensWith(7, std::string(1025, 'a')))),
       {"has entry 7 'aaa", "of 1025 bytes; 1 to 1024"}},
      {"TokenIsNoUtf8",
       Tokenizer("tokens", GgufStrings(TokensWith(7, "a\xc3"))),
       {"has entry 7 'a\\xc3', which is not valid UTF-8"}},
      {"TokenTwice", Tokenizer("tokens", GgufStrings(TokensWith(7, "t3"))),
       {"has entry 7 't3', which an earlier one has too"}},
      {"NoTypes", Remove("tokenizer.ggml.token_type"),
       {"key 'tokenizer.ggml.token_type' is missing"}},
      {"FewerTypesThanTokens",
       Tokenizer("token_type", GgufI32s(std::vector<int>(319, 1))),
       {"key 'tokenizer.ggml.token_type' has 319 elements for 320 tokens"}},
      {"TypesAsText", Tokenizer("token_type", GgufStrings(Tokens(320))),
       {"key 'tokenizer.ggml.token_type' must be an array of integers"}},
      {"UnknownTokenType",
       Tokenizer("token_type", GgufI32s(std::vector<int>(320, 7))),
       {"has type 7 for token 0; 1 to 6 are defined"}},
      {"NoMerges", Remove("tokenizer.ggml.merges"),
       {"key 'tokenizer.ggml.merges' is missing"}},
      {"MergeWithoutSpace", Tokenizer("merges", GgufStrings({"ab"})),
       {"key 'tokenizer.ggml.merges' has entry 0 'ab', which is not two"}},
      {"MergeOfThree", Tokenizer("merges", GgufStrings({"a b c"})),
       {"has entry 0 'a b c', which is not two tokens"}},
      {"MergeOfAMissingToken", Tokenizer("merges", GgufStrings({"h e", "zz q"})),
       {"has entry 1 'zz q', whose 'zz' is no token"}},
      {"MergeToAMissingToken", Tokenizer("merges", GgufStrings({"z q"})),
       {"has entry 0 'z q', whose 'zq' is no token"}},
      {"BosOutOfRange", Tokenizer("bos_token_id", GgufU32(320)),
       {"key 'tokenizer.ggml.bos_token_id' is 320; 0 to 319"}},
      {"EosOutOfRange", Tokenizer("eos_token_id", GgufU32(0xffffffff)),
       {"key 'tokenizer.ggml.eos_token_id' is 4294967295"}},
      {"EndOfTurnNegative", Tokenizer("eot_token_id", GgufI32(-1)),
       {"key 'tokenizer.ggml.eot_token_id' is -1"}},
      {"SinkOutOfRange", Set("millrace.sink_token_id", GgufU32(320)),
       {"key 'millrace.sink_token_id' is 320; 0 to 319"}},
      {"SinkNegative", Set("millrace.sink_token_id", GgufI32(-1)),
       {"key 'millrace.sink_token_id' is -1; 0 to 319"}},
      {"SinkAsText", Set("millrace.sink_token_id", GgufString("<sink>")),
       {"key 'millrace.sink_token_id' must be an integer, 0 to 319"}},
      {"SinkAsFloat", Set("millrace.sink_token_id", GgufF32(2)),
       {"key 'millrace.sink_token_id' must be an integer, 0 to 319"}},
      {"SinkUnderAnotherName", Set("millrace.sink_token", GgufU32(2)),
       {"key 'millrace.sink_token' is not supported"}},
      {"BosWantedAndMissing",
       [](GgufImage& i) {
         i.Set("tokenizer.ggml.add_bos_token", GgufBool(true));
         i.Remove("tokenizer.ggml.bos_token_id");
       },
       {"key 'tokenizer.ggml.add_bos_token' is true", "is missing"}},
      {"BoolOf2", Tokenizer("add_bos_token", {7, "\x02"}),
       {"key 'tokenizer.ggml.add_bos_token' must be a bool"}},
      {"BoolAsNumber", Tokenizer("add_bos_token", GgufU32(1)),
       {"key 'tokenizer.ggml.add_bos_token' must be a bool"}},
      {"TemplateTooLong",
       Set("tokenizer.chat_template", GgufString(std::string(300'000, 'x'))),
       {"key 'tokenizer.chat_template' has 300000 bytes; at most 262144"}},
      {"TemplateIsNoUtf8", Set("tokenizer.chat_template", GgufString("\xed\xa0\x80")),
       {"key 'tokenizer.chat_template' is not valid UTF-8"}},
      {"UnknownKey", Tokenizer("precompiled_charsmap", GgufString("x")),
       {"key 'tokenizer.ggml.precompiled_charsmap' is not supported"}},
  };
  return rows;
}

const std::vector<Row>& ValueRows() {
  constexpr absl::string_view kWords = "that is not a finite number";
  const std::vector<std::string> scale = {
      absl::StrCat("tensor 'token_embd.weight' has a scale ", kWords)};
  const std::vector<std::string> weight = {
      absl::StrCat("tensor 'token_embd.weight' has a weight ", kWords)};
  static const auto& rows = *new std::vector<Row>{
      {"F32Nan", Bits(WeightType::kF32, 400, 0x7fc00000, 4), weight},
      {"F16Infinite", Bits(WeightType::kF16, 200, 0x7c00, 2), weight},
      {"BF16Nan", Bits(WeightType::kBF16, 200, 0x7fc0, 2), weight},
      {"Q8_0Scale", Bits(WeightType::kQ8_0, 340, 0xfc00, 2), scale},
      {"Q4_0Scale", Bits(WeightType::kQ4_0, 180, 0x7e00, 2), scale},
      {"Q4_1Scale", Bits(WeightType::kQ4_1, 200, 0x7c00, 2), scale},
      {"Q4_1Minimum", Bits(WeightType::kQ4_1, 202, 0x7c00, 2), scale},
      {"NormNan",
       Tensor("blk.1.ffn_norm.weight",
              [](auto& t) { t.data.replace(8, 4, GgufF32(kNan).bytes); }),
       {"tensor 'blk.1.ffn_norm.weight' has a weight that is not a finite"}},
  };
  return rows;
}

class GgufNegatives : public TestWithParam<Row> {};

TEST_P(GgufNegatives, IsRefused) {
  GgufImage image = TinyLlama({});
  ASSERT_TRUE(Refusal(image.Serialize()).ok()) << Refusal(image.Serialize());
  GetParam().change(image);
  const absl::Status status = Refusal(image.Serialize());
  EXPECT_THAT(status,
              IsRefused(absl::StatusCode::kInvalidArgument, GetParam().words));
}

std::string NameOf(const TestParamInfo<Row>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Header, GgufNegatives,
                         ::testing::ValuesIn(HeaderRows()), NameOf);
INSTANTIATE_TEST_SUITE_P(Key, GgufNegatives, ::testing::ValuesIn(KeyRows()),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Tensor, GgufNegatives,
                         ::testing::ValuesIn(TensorRows()), NameOf);
INSTANTIATE_TEST_SUITE_P(Shape, GgufNegatives, ::testing::ValuesIn(ShapeRows()),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Tokenizer, GgufNegatives,
                         ::testing::ValuesIn(TokenizerRows()), NameOf);
INSTANTIATE_TEST_SUITE_P(Value, GgufNegatives, ::testing::ValuesIn(ValueRows()),
                         NameOf);

// llama.cpp's 43 bytes: a header, and an array of 2^63 elements.
TEST(GgufTest, RefusesAnArrayOf2To63In43Bytes) {
  const std::string bytes = "GGUF" + LittleEndian(3, 4) + LittleEndian(0, 8) +
                            LittleEndian(1, 8) + GgufBytes("a") +
                            LittleEndian(9, 4) + LittleEndian(0, 4) +
                            LittleEndian(uint64_t{1} << 63, 2);
  ASSERT_EQ(bytes.size(), 43);
  EXPECT_THAT(Refusal(bytes),
              IsRefused(absl::StatusCode::kInvalidArgument, {"key 'a'"}));
}

// ---- What looks unusual and is allowed ----

struct Allowed {
  std::string name;
  std::function<void(GgufImage&)> change;
};

void PrintTo(const Allowed& row, std::ostream* out) { *out << row.name; }

class GgufAllowed : public TestWithParam<Allowed> {};

TEST_P(GgufAllowed, Opens) {
  GgufImage image = TinyLlama({});
  GetParam().change(image);
  const absl::Status status = Refusal(image.Serialize());
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(
    Gguf, GgufAllowed,
    ::testing::ValuesIn(std::vector<Allowed>{
        {"Version2", [](GgufImage& i) { i.version = 2; }},
        {"AnotherAlignment",
         [](GgufImage& i) {
           i.Set("general.alignment", GgufU32(256));
           i.alignment = 256;
         }},
        {"NumbersOfAnotherWidth", Llama("block_count", GgufU64(2))},
        {"NeutralScaling", Llama("rope.scaling.type", GgufString("none"))},
        {"NoExperts", Llama("expert_count", GgufU32(0))},
        {"KeysOfOthers", Set("vendor.note", GgufStrings({"a", "b"}))},
        {"AnEmptyArray", Set("general.tags", GgufStrings({}))},
        {"NoChatTemplate", Remove("tokenizer.chat_template")},
        {"MoreTemplates",
         Set("tokenizer.chat_template.tool_use", GgufString("x"))},
        {"NoEndOfText", Remove("tokenizer.ggml.eos_token_id")},
        {"NoMergesInTheList", Tokenizer("merges", GgufStrings({}))},
        {"TensorsInAnotherOrder",
         [](GgufImage& i) {
           std::reverse(i.tensors.begin(), i.tensors.end());
         }},
    }),
    [](const auto& info) { return info.param.name; });

TEST(GgufTest, ReadsTokensThatEndATurn) {
  GgufImage image = TinyLlama({});
  image.Set("tokenizer.ggml.eot_token_id", GgufU32(7));
  const auto file = OpenModelFile(WriteTestFile(image.Serialize()), {});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->tokenizer().end_of_turn_ids, ::testing::ElementsAre(7));
}

TEST(GgufTest, DerivesTheHeadFromTheWidthIfTheFileDoesNotSay) {
  GgufImage image = TinyLlama({});
  for (const char* key :
       {"llama.attention.key_length", "llama.attention.value_length",
        "llama.rope.dimension_count", "llama.rope.freq_base",
        "llama.vocab_size"}) {
    image.Remove(key);
  }
  const auto file = OpenModelFile(WriteTestFile(image.Serialize()), {});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->config().head_dim, 16);
  EXPECT_EQ((*file)->config().rope_base, 10000);
}

}  // namespace
}  // namespace millrace::backends
