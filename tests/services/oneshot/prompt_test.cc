#include "services/oneshot/prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/tiny_tokenizer.h"

namespace millrace::oneshot {
namespace {

using session::Input;
using session::MessageInput;
using session::TextInput;
using ::testing::ElementsAre;

constexpr int32_t kSink = 3;
using Ids = std::vector<int32_t>;

Ids IdsOf(const std::vector<Input>& inputs, const TextTools& tools) {
  const auto prompt = BuildPrompt(inputs, tools, true);
  EXPECT_TRUE(prompt.ok()) << prompt.status();
  return prompt.ok() ? prompt->ids : Ids();
}

TEST(Prompt, ASinkTokenIsTokenZeroWhateverTheInputIs) {
  const testing::FakeTokenizer tokenizer({"a", "b", "ab"}, {"<end>"}, kSink);
  const TextTools tools = {&tokenizer, nullptr, {}};
  EXPECT_THAT(IdsOf({TextInput{"ab"}}, tools), ElementsAre(kSink, 2));
  EXPECT_THAT(IdsOf({Ids{1, 0}}, tools), ElementsAre(kSink, 1, 0));
  EXPECT_THAT(IdsOf({TextInput{"a"}, Ids{1}, TextInput{"b"}}, tools),
              ElementsAre(kSink, 0, 1, 1));
  EXPECT_THAT(IdsOf({}, tools), ElementsAre(kSink));
}

TEST(Prompt, WithoutASinkTokenTextIsAllThereIs) {
  const testing::FakeTokenizer tokenizer({"a", "b", "ab"}, {"<end>"});
  const TextTools tools = {&tokenizer, nullptr, {}};
  EXPECT_THAT(IdsOf({TextInput{"ab"}}, tools), ElementsAre(2));
}

// 1 sink token and a block of "<|im_start|>", "system\n", "Be" and so on.
TEST(Prompt, ASinkTokenIsPinnedWithTheSystemPromptOfAChat) {
  const auto metadata = testing::TinyTokenizerMetadata();
  const auto plain = *text::Tokenizer::Create(metadata);
  const auto sunk = *text::Tokenizer::Create(metadata, 0);
  const std::vector<Input> chat = {
      MessageInput{text::Role::kSystem, "Be brief."},
      MessageInput{text::Role::kUser, "Hi"}};
  Prompt prompts[2];
  for (const auto* tokenizer : {plain.get(), sunk.get()}) {
    const auto format =
        *text::ChatFormat::Create(testing::kTinyChatTemplate, tokenizer);
    prompts[tokenizer == sunk.get()] =
        *BuildPrompt(chat, {tokenizer, format.get(), {}}, true);
  }
  Ids expected = prompts[0].ids;
  expected.insert(expected.begin(), 0);
  EXPECT_EQ(prompts[1].ids, expected);
  EXPECT_EQ(prompts[1].pinned_tokens, prompts[0].pinned_tokens + 1);
  EXPECT_EQ(prompts[1].rendered_text, prompts[0].rendered_text);
}

}  // namespace
}  // namespace millrace::oneshot
