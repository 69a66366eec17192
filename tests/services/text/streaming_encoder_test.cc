#include "services/text/streaming_encoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tests/services/text/reference_tokenizer.h"
#include "tests/testing/test_files.h"
#include "tests/testing/tiny_tokenizer.h"

namespace millrace::text {
namespace {

// Cuts at random characters and compares with the whole.
void ExpectCutsDoNotMatter(const Tokenizer& tokenizer, absl::string_view text,
                           SpecialTokens special, int rounds) {
  const auto whole = tokenizer.Encode(text, special);
  std::mt19937 random(7);
  for (int round = 0; round < rounds; ++round) {
    const size_t longest = 1 + random() % 40;
    StreamingEncoder encoder(&tokenizer, special);
    std::vector<int32_t> ids;
    for (absl::string_view rest = text; !rest.empty();) {
      size_t size = 1 + random() % longest;
      while (size < rest.size() && (rest[size] & 0xC0) == 0x80) ++size;
      for (int32_t id : encoder.Add(rest.substr(0, size))) ids.push_back(id);
      rest.remove_prefix(std::min(size, rest.size()));
    }
    for (int32_t id : encoder.Finish()) ids.push_back(id);
    const auto differs =
        std::mismatch(whole.begin(), whole.end(), ids.begin(), ids.end());
    const std::vector<int32_t> same(whole.begin(), differs.first);
    ASSERT_TRUE(differs.first == whole.end() && differs.second == ids.end())
        << "pieces of up to " << longest << " bytes, after '"
        << tokenizer.Decode(same, SpecialTokens::kParsed) << "'";
  }
}

TEST(StreamingEncoder, CutsOfOddTextDoNotMatter) {
  SKIP_WITHOUT_MODEL();
  ExpectCutsDoNotMatter(*ReferenceTokenizer(),
                        testing::TestData("reference/odd_text.txt"),
                        SpecialTokens::kAsText, 200);
}

TEST(StreamingEncoder, CutsDoNotMatterForAnyPreTokenizer) {
  const std::string text =
      "It's   the river's 12345 end.\r\n\r\n  \n hello, they'RE hell\u00e9 "
      "\u00a0\u3000 \t\n\n x'll 'tis!!??\n <|im_end|> <|im_ <|im_start|>user\n";
  for (const char* name : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
    auto metadata = testing::TinyTokenizerMetadata();
    metadata.pre_tokenizer = name;
    const auto tokenizer = Tokenizer::Create(metadata);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    SCOPED_TRACE(name);
    ExpectCutsDoNotMatter(**tokenizer, text, SpecialTokens::kAsText, 300);
    ExpectCutsDoNotMatter(**tokenizer, text, SpecialTokens::kParsed, 300);
  }
}

TEST(StreamingEncoder, HoldsLittleOfOrdinaryText) {
  const auto tokenizer = testing::TinyTokenizer();
  StreamingEncoder encoder(tokenizer.get(), SpecialTokens::kAsText);
  for (int i = 0; i < 1000; ++i) {
    encoder.Add("the rivers ");
    ASSERT_LE(encoder.held_bytes(), 16u);
  }
}

TEST(StreamingEncoder, HoldsABoundedPartOfAnEndlessWord) {
  const auto tokenizer = testing::TinyTokenizer();
  StreamingEncoder encoder(tokenizer.get(), SpecialTokens::kAsText);
  std::vector<int32_t> ids;
  for (int i = 0; i < 100; ++i) {
    for (int32_t id : encoder.Add(std::string(4096, 'q'))) ids.push_back(id);
    ASSERT_LE(encoder.held_bytes(), 64u << 10);
  }
  for (int32_t id : encoder.Finish()) ids.push_back(id);
  EXPECT_EQ(ids.size(), 100u * 4096);
}

TEST(StreamingEncoder, IsAsNewAfterFinish) {
  const auto tokenizer = testing::TinyTokenizer();
  StreamingEncoder encoder(tokenizer.get(), SpecialTokens::kAsText);
  encoder.Add("hel");
  encoder.Finish();
  EXPECT_EQ(encoder.held_bytes(), 0u);
  encoder.Add("lo");
  EXPECT_EQ(encoder.Finish().size(), 2u);  // "l", "o": not "hello"
}

}  // namespace
}  // namespace millrace::text
