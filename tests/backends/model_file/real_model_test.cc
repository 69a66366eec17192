// The default model, as it is published. Skipped where it is not.
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "backends/model_file/registry.h"
#include "gmock/gmock.h"

namespace millrace::backends {
namespace {

constexpr char kSha256[] =
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

std::string ModelPath() {
  const char* path = std::getenv("MILLRACE_MODEL");
  if (path != nullptr) return path;
  const char* home = std::getenv("HOME");
  return std::string(home == nullptr ? "" : home) +
         "/.cache/millrace/SmolLM2-135M-Instruct.Q4_1.gguf";
}

TEST(RealModelTest, IsWhatItsPublishersSay) {
  if (access(ModelPath().c_str(), R_OK) != 0) {
    GTEST_SKIP() << "no model at '" << ModelPath() << "'";
  }
  const auto opened = OpenModelFile(ModelPath(), {.expected_sha256 = kSha256});
  ASSERT_TRUE(opened.ok()) << opened.status();
  const ModelFile& file = **opened;

  EXPECT_EQ(file.config().num_layers, 30);
  EXPECT_EQ(file.config().num_heads, 9);
  EXPECT_EQ(file.config().num_kv_heads, 3);
  EXPECT_EQ(file.config().head_dim, 64);
  EXPECT_EQ(file.config().embedding_size, 576);
  EXPECT_EQ(file.config().feed_forward_size, 1536);
  EXPECT_EQ(file.config().vocabulary_size, 49152);
  EXPECT_EQ(file.config().trained_context, 8192);
  EXPECT_EQ(file.config().rope_base, 100000);
  EXPECT_EQ(file.config().rms_epsilon, 1e-5f);
  EXPECT_TRUE(file.config().tied_embedding);

  EXPECT_EQ(file.info().file_bytes, 98362432);
  EXPECT_EQ(file.info().num_tensors, 272);
  EXPECT_EQ(file.info().num_parameters, 134515008);
  EXPECT_EQ(file.info().weight_types, "Q4_1 69%, Q8_0 31%, F32 0%");
  EXPECT_EQ(file.FindTensor("token_embd.weight")->type, WeightType::kQ8_0);
  EXPECT_EQ(file.FindTensor("blk.29.ffn_down.weight")->type, WeightType::kQ4_1);

  EXPECT_EQ(file.tokenizer().pre_tokenizer, "smollm");
  EXPECT_EQ(file.tokenizer().merges.size(), 48900);
  EXPECT_EQ(file.tokenizer().merges.front(), "Ġ t");
  EXPECT_EQ(file.tokenizer().bos_id, 1);
  EXPECT_EQ(file.tokenizer().sink_id, std::nullopt);
  EXPECT_EQ(file.tokenizer().eos_id, 2);
  EXPECT_FALSE(file.tokenizer().add_bos);
}

}  // namespace
}  // namespace millrace::backends
