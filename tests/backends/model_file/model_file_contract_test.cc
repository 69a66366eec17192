#include "tests/backends/model_file/model_file_contract.h"

#include <unistd.h>

#include <set>

#include "backends/model_file/registry.h"
#include "backends/model_file/tensor_layout.h"
#include "gmock/gmock.h"
#include "tests/backends/model_file/model_file_matchers.h"

namespace millrace::backends {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using testing::TinyLlamaOptions;
using testing::WriteTestFile;

INSTANTIATE_TEST_SUITE_P(Gguf, ModelFileContract,
                         ::testing::Values(ContractCase{
                             "gguf", [](const TinyLlamaOptions& options) {
                               return testing::TinyLlama(options).Serialize();
                             }}));

TEST_P(ModelFileContract, IsOnTheVisibleList) {
  EXPECT_THAT(ModelFileFormats(), Contains(GetParam().format));
}

TEST_P(ModelFileContract, TellsTheShapeOfTheModel) {
  const auto file =
      OpenModelFile(WriteTestFile(GetParam().bytes({.num_layers = 3,
                                                    .num_heads = 6,
                                                    .num_kv_heads = 2,
                                                    .head_dim = 8,
                                                    .embedding_size = 64,
                                                    .feed_forward_size = 160,
                                                    .vocabulary_size = 300,
                                                    .trained_context = 8192,
                                                    .rope_base = 100000,
                                                    .rms_epsilon = 1e-6f})),
                    {});
  ASSERT_TRUE(file.ok()) << file.status();
  const ModelConfig& config = (*file)->config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.num_layers, 3);
  EXPECT_EQ(config.num_heads, 6);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.embedding_size, 64);
  EXPECT_EQ(config.feed_forward_size, 160);
  EXPECT_EQ(config.vocabulary_size, 300);
  EXPECT_EQ(config.trained_context, 8192);
  EXPECT_EQ(config.rope_base, 100000);
  EXPECT_EQ(config.rms_epsilon, 1e-6f);
  EXPECT_TRUE(config.tied_embedding);
}

TEST_P(ModelFileContract, HoldsTheTensorsOfTheLayoutAndNoOthers) {
  for (const bool tied : {true, false}) {
    const auto file = OpenModelFile(
        WriteTestFile(GetParam().bytes({.tied_embedding = tied})), {});
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->config().tied_embedding, tied);
    std::set<std::string> wanted;
    for (const TensorShape& shape : TensorLayout((*file)->config())) {
      const auto tensor = (*file)->FindTensor(shape.name);
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_EQ(tensor->name, shape.name);
      EXPECT_EQ(tensor->rows, shape.rows);
      EXPECT_EQ(tensor->cols, shape.cols);
      EXPECT_EQ(tensor->data.size(), tensor->rows * tensor->row_bytes());
      wanted.insert(shape.name);
    }
    const std::vector<std::string> names = (*file)->TensorNames();
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), wanted);
    EXPECT_EQ((*file)->info().num_tensors, wanted.size());
  }
}

TEST_P(ModelFileContract, GivesWeightsOfEveryTypeUnchangedAndAligned) {
  for (const WeightType type :
       {WeightType::kF32, WeightType::kF16, WeightType::kBF16,
        WeightType::kQ8_0, WeightType::kQ4_0, WeightType::kQ4_1}) {
    const TinyLlamaOptions options{.matrices = type};
    const auto file =
        OpenModelFile(WriteTestFile(GetParam().bytes(options)), {});
    ASSERT_TRUE(file.ok()) << file.status();
    for (const auto& written : testing::TinyLlama(options).tensors) {
      const auto tensor = (*file)->FindTensor(written.name);
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_EQ(std::string(tensor->data.begin(), tensor->data.end()),
                written.data)
          << written.name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->data.data()) % 8, 0);
    }
    EXPECT_EQ((*file)->FindTensor("blk.1.ffn_up.weight")->type, type);
  }
}

TEST_P(ModelFileContract, NamesATensorThatIsNotThere) {
  const auto file = OpenModelFile(WriteTestFile(GetParam().bytes({})), {});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->FindTensor("blk.2.ffn_up.weight").status(),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("'blk.2.ffn_up.weight'")));
}

TEST_P(ModelFileContract, TellsWhatATokenizerIsMadeOf) {
  const auto file = OpenModelFile(
      WriteTestFile(GetParam().bytes({.vocabulary_size = 262,
                                      .pre_tokenizer = "smollm",
                                      .add_bos = true,
                                      .sink_id = 261,
                                      .chat_template = "{{ x }}"})),
      {});
  ASSERT_TRUE(file.ok()) << file.status();
  const TokenizerMetadata& tokenizer = (*file)->tokenizer();
  EXPECT_EQ(tokenizer.model, "gpt2");
  EXPECT_EQ(tokenizer.pre_tokenizer, "smollm");
  EXPECT_EQ(tokenizer.tokens.size(), 262);
  EXPECT_EQ(tokenizer.token_types.size(), 262);
  EXPECT_EQ(tokenizer.tokens[1], "<|im_start|>");
  EXPECT_EQ(tokenizer.token_types[1], TokenType::kControl);
  EXPECT_EQ(tokenizer.tokens[3 + 'a'], "a");
  EXPECT_EQ(tokenizer.token_types[3 + 'a'], TokenType::kNormal);
  EXPECT_THAT(tokenizer.merges, ::testing::ElementsAre("Ġ t", "h e", "i n"));
  EXPECT_EQ(tokenizer.unknown_id, 0);
  EXPECT_EQ(tokenizer.bos_id, 1);
  EXPECT_EQ(tokenizer.eos_id, 2);
  EXPECT_EQ(tokenizer.padding_id, std::nullopt);
  EXPECT_EQ(tokenizer.sink_id, 261);
  EXPECT_TRUE(tokenizer.add_bos);
  EXPECT_FALSE(tokenizer.add_eos);
  EXPECT_FALSE(tokenizer.add_space_prefix);
  EXPECT_EQ(tokenizer.chat_template, "{{ x }}");
}

TEST_P(ModelFileContract, TellsWhatTheFileIs) {
  const std::string bytes = GetParam().bytes({});
  const std::string path = WriteTestFile(bytes);
  const auto file = OpenModelFile(path, {});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->info().path, path);
  EXPECT_EQ((*file)->info().file_bytes, bytes.size());
  EXPECT_EQ((*file)->info().sha256.size(), 64);
  EXPECT_EQ((*file)->info().weight_types, "F32 100%");
}

TEST_P(ModelFileContract, IsReadThroughASymbolicLink) {
  const std::string path = WriteTestFile(GetParam().bytes({}));
  const std::string link = path + ".link";
  ASSERT_EQ(symlink(path.c_str(), link.c_str()), 0);
  EXPECT_TRUE(OpenModelFile(link, {}).ok());
}

TEST_P(ModelFileContract, OpensOnlyWithTheHashThatIsExpected) {
  const std::string path = WriteTestFile(GetParam().bytes({}));
  std::string pin = OpenModelFile(path, {}).value()->info().sha256;
  EXPECT_TRUE(OpenModelFile(path, {.expected_sha256 = pin}).ok());
  pin[0] = pin[0] == '0' ? '1' : '0';
  EXPECT_THAT(OpenModelFile(path, {.expected_sha256 = pin}).status(),
              IsRefused(absl::StatusCode::kInvalidArgument,
                        {"SHA-256", pin + " was expected"}));
}

TEST_P(ModelFileContract, RefusesTheFileCutAnywhere) {
  const std::string bytes = GetParam().bytes(
      {.num_layers = 1, .feed_forward_size = 32, .vocabulary_size = 40});
  for (size_t size = 0; size < bytes.size(); size += 61) {
    const std::string path =
        WriteTestFile(absl::string_view(bytes).substr(0, size));
    EXPECT_THAT(OpenModelFile(path, {}).status(),
                IsRefused(absl::StatusCode::kInvalidArgument, {}))
        << "after " << size << " bytes";
    unlink(path.c_str());
  }
}

TEST_P(ModelFileContract, RefusesBytesBehindTheEnd) {
  const std::string path =
      WriteTestFile(GetParam().bytes({}) + std::string(64, 'x'));
  EXPECT_THAT(OpenModelFile(path, {}).status(),
              IsRefused(absl::StatusCode::kInvalidArgument,
                        {"64 bytes that belong to no tensor"}));
}

}  // namespace
}  // namespace millrace::backends
