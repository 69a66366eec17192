#include "services/text/chat_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/services/text/reference_tokenizer.h"
#include "tests/testing/test_files.h"
#include "tests/testing/tiny_tokenizer.h"

namespace millrace::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload("millrace/reason");
  return payload.has_value() ? std::string(*payload) : "";
}

class TinyChat : public ::testing::Test {
 protected:
  std::unique_ptr<const ChatFormat> Make(absl::string_view chat_template) {
    auto format = ChatFormat::Create(chat_template, tokenizer_.get());
    EXPECT_TRUE(format.ok()) << format.status();
    return format.ok() ? *std::move(format) : nullptr;
  }
  std::string Spelt(const std::vector<int32_t>& ids) {
    return tokenizer_->Decode(ids, SpecialTokens::kParsed);
  }

  const std::unique_ptr<const Tokenizer> tokenizer_ = testing::TinyTokenizer();
};

TEST_F(TinyChat, PartsAreThoseOfTheTemplate) {
  const auto format = Make(testing::kTinyChatTemplate);
  ASSERT_NE(format, nullptr);
  EXPECT_EQ(Spelt(format->SystemBlock("Be brief.")),
            "<|im_start|>system\nBe brief.<|im_end|>\n");
  EXPECT_EQ(Spelt(format->SystemBlock(std::nullopt)), "");
  EXPECT_EQ(Spelt(format->Message(Role::kUser, "Hi")),
            "<|im_start|>user\nHi<|im_end|>");
  EXPECT_EQ(Spelt(format->AssistantHeader()), "<|im_start|>assistant\n");
  EXPECT_EQ(Spelt(format->ClosingGlue()), "\n");
  EXPECT_THAT(format->EndMessage(), ElementsAre(2));
}

// Once, in front of all, whether the template writes a beginning of text or
// not; what it writes stays the same.
TEST(ChatWithASinkToken, StandsInFrontOfWhateverComesFirst) {
  auto metadata = testing::TinyTokenizerMetadata();
  metadata.bos_id = 1;
  for (const bool add_bos : {false, true}) {
    metadata.add_bos = add_bos;
    const std::string chat_template =
        absl::StrCat("{{ bos_token }}", testing::kTinyChatTemplate);
    const auto plain = *Tokenizer::Create(metadata);
    const auto sunk = *Tokenizer::Create(metadata, 0);
    const auto without = ChatFormat::Create(chat_template, plain.get());
    const auto with = ChatFormat::Create(chat_template, sunk.get());
    ASSERT_TRUE(without.ok()) << without.status();
    ASSERT_TRUE(with.ok()) << with.status();
    const auto in_front = [](std::vector<int32_t> ids) {
      ids.insert(ids.begin(), 0);
      return ids;
    };
    for (const auto prompt :
         {std::optional<absl::string_view>(), {"Be brief."}}) {
      EXPECT_EQ((*with)->SystemBlock(prompt),
                in_front((*without)->SystemBlock(prompt)));
    }
    EXPECT_EQ((*with)->SystemBlock(std::nullopt).size(), add_bos ? 2u : 1u);
    const std::vector<ChatMessage> messages = {{Role::kUser, "Hi"}};
    EXPECT_EQ((*with)->Render(messages, true)->ids,
              in_front((*without)->Render(messages, true)->ids));
    EXPECT_EQ((*with)->Render(messages, true)->text,
              (*without)->Render(messages, true)->text);
    for (const Role role : {Role::kUser, Role::kSystem}) {
      EXPECT_EQ((*with)->Message(role, "Hi"), (*without)->Message(role, "Hi"));
    }
    EXPECT_EQ((*with)->AssistantHeader(), (*without)->AssistantHeader());
  }
}

TEST_F(TinyChat, SpecialTokensInContentsStayText) {
  const auto format = Make(testing::kTinyChatTemplate);
  const auto ids = format->Message(Role::kUser, "a<|im_end|>b");
  EXPECT_EQ(Spelt(ids), "<|im_start|>user\na<|im_end|>b<|im_end|>");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2), 1);
  const auto system = format->SystemBlock("<|im_start|>");
  EXPECT_EQ(std::count(system.begin(), system.end(), 1), 1);
}

TEST_F(TinyChat, NoPieceOfContentJoinsThoseOfTheTemplateToASpecialToken) {
  // The template ends with "<|im_"; the content would complete it.
  const auto format = Make(
      "{% for m in messages %}{{ m.role }}:<|im_{{ m.content }}"
      "<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:<|im_"
      "{% endif %}");
  ASSERT_NE(format, nullptr);
  const auto ids = format->Message(Role::kUser, "start|>");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 1), 0);
}

TEST_F(TinyChat, ATemplateThatTrimsIsUsedAsItIs) {
  const auto format = Make(
      "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}"
      "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
      "<|im_start|>assistant\n{% endif %}");
  ASSERT_NE(format, nullptr);
  EXPECT_EQ(Spelt(format->Message(Role::kUser, "  Hi \n")),
            "<|im_start|>user\nHi<|im_end|>");
}

TEST_F(TinyChat, ATemplateThatWantsRolesToAlternateIsAskedAlternately) {
  const auto format = Make(
      "{% for m in messages %}{% if loop.index0 > 1 and m.role == "
      "messages[loop.index0 - 1].role %}{{ raise_exception('alternate!') }}"
      "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
      "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
      "{% endif %}");
  ASSERT_NE(format, nullptr);
  const auto refused = format->Render(
      {{Role::kSystem, "s"}, {Role::kUser, "a"}, {Role::kUser, "b"}}, true);
  EXPECT_THAT(refused.status().message(), HasSubstr("alternate!"));
}

TEST_F(TinyChat, ATemplateThatDoesNotFitIsRefusedWithTheReason) {
  const std::string message =
      "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n";
  const std::string header =
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  for (const auto& [chat_template, reason, says] :
       std::vector<std::tuple<std::string, std::string, std::string>>{
           {"", "NO_CHAT_TEMPLATE", "has no chat template"},
           {"{% macro x() %}", "CHAT_TEMPLATE_NOT_INCREMENTAL", "not 'macro'"},
           {"{{ raise_exception('no') }}", "CHAT_TEMPLATE_NOT_INCREMENTAL",
            "refuses: no"},
           // Forgets all but the last message.
           {"{% for m in messages %}{% if loop.last %}" + message +
                "{% endif %}{% endfor %}" + header,
            "CHAT_TEMPLATE_NOT_INCREMENTAL",
            "it does not write every message once"},
           // Shouts.
           {"{% for m in messages %}{{ m.content|upper }}<|im_end|>"
            "{% endfor %}" +
                header,
            "CHAT_TEMPLATE_NOT_INCREMENTAL",
            "it does not write every message once"},
           // Says it twice.
           {"{% for m in messages %}{{ m.content }}{{ m.content }}<|im_end|>"
            "{% endfor %}" +
                header,
            "CHAT_TEMPLATE_NOT_INCREMENTAL",
            "it does not write every message once"},
           // No token ends a message.
           {"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\n"
            "{% endfor %}" +
                header,
            "CHAT_TEMPLATE_NOT_INCREMENTAL",
            "it does not end a reply with a token"},
           {"{% for m in messages %}" + message + "{% endfor %}",
            "CHAT_TEMPLATE_NOT_INCREMENTAL", "a reply begins differently"},
       }) {
    const auto format = ChatFormat::Create(chat_template, tokenizer_.get());
    ASSERT_FALSE(format.ok()) << chat_template;
    EXPECT_TRUE(absl::IsFailedPrecondition(format.status()));
    EXPECT_EQ(ReasonOf(format.status()), reason);
    EXPECT_THAT(format.status().message(), HasSubstr(says)) << chat_template;
  }
}

// The shapes of templates that models are published with; all of them name
// their tokens as TinyTokenizer does.
TEST_F(TinyChat, TemplatesOfManyModelsRenderAndSayWhetherTheyFit) {
  const std::string generation =
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  const std::vector<ChatMessage> messages = {
      {Role::kUser, "Hi"}, {Role::kAssistant, "Yo"}, {Role::kUser, "Bye"}};
  // Llama 3: trims, counts from the first, writes the start of text.
  const auto llama3 = Make(
      "{% set loop_messages = messages %}{% for message in loop_messages %}"
      "{% set content = '<|im_start|>' + message['role'] + '\n\n' + "
      "message['content'] | trim + '<|im_end|>' %}"
      "{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
      "{% endif %}{{ content }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}"
      "{% endif %}");
  ASSERT_NE(llama3, nullptr);
  EXPECT_EQ(Spelt(llama3->ClosingGlue()), "");
  EXPECT_EQ(llama3->Render(messages, true)->text,
            "<|im_start|>user\n\nHi<|im_end|><|im_start|>assistant\n\nYo"
            "<|im_end|><|im_start|>user\n\nBye<|im_end|>"
            "<|im_start|>assistant\n\n");
  // Qwen2.5: tools that nobody gives, a system prompt of its own.
  const auto qwen = Make(
      "{%- if tools %}\n    {{- tools | frobnicate }}\n{%- else %}\n"
      "    {%- if messages[0]['role'] == 'system' %}\n"
      "        {{- '<|im_start|>system\n' + messages[0]['content'] + "
      "'<|im_end|>\n' }}\n    {%- else %}\n"
      "        {{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}\n"
      "    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n"
      "    {%- if (message.role == 'user') or (message.role == 'system' and "
      "not loop.first) or (message.role == 'assistant' and not "
      "message.tool_calls) %}\n        {{- '<|im_start|>' + message.role + "
      "'\n' + message.content + '<|im_end|>' + '\n' }}\n    {%- endif %}\n"
      "{%- endfor %}\n{%- if add_generation_prompt %}\n"
      "    {{- '<|im_start|>assistant\n' }}\n{%- endif %}\n");
  ASSERT_NE(qwen, nullptr);
  EXPECT_EQ(Spelt(qwen->SystemBlock(std::nullopt)),
            "<|im_start|>system\nYou are Qwen.<|im_end|>\n");
  EXPECT_EQ(Spelt(qwen->Message(Role::kSystem, "s")),
            "<|im_start|>system\ns<|im_end|>");
  // Zephyr: names in bars, the end of text ends a message.
  const auto zephyr = Make(
      "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
      "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
      "{% elif message['role'] == 'system' %}\n"
      "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
      "{% elif message['role'] == 'assistant' %}\n"
      "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
      "{% endif %}\n{% if loop.last and add_generation_prompt %}\n"
      "{{ '<|assistant|>\n' }}{% endif %}\n{% endfor %}");
  ASSERT_NE(zephyr, nullptr);
  EXPECT_EQ(Spelt(zephyr->ClosingGlue()), "\n");
  // Gemma takes no system prompt.
  const auto gemma = ChatFormat::Create(
      "{% if messages[0]['role'] == 'system' %}"
      "{{ raise_exception('System role not supported') }}{% endif %}"
      "{% for m in messages %}{% if (m['role'] == 'user') != "
      "(loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
      "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + "
      "'<|im_end|>\n' }}{% endfor %}" +
          generation,
      tokenizer_.get());
  EXPECT_THAT(gemma.status().message(), HasSubstr("System role not supported"));
  // Mistral writes the system prompt into the user's message.
  const auto mistral = ChatFormat::Create(
      "{% if messages[0]['role'] == 'system' %}{% set s = "
      "messages[0]['content'] %}{% set rest = messages[1:] %}{% else %}"
      "{% set rest = messages %}{% endif %}{% for m in rest %}"
      "{% if m['role'] == 'user' %}{% if loop.first and s is defined %}"
      "{{ '[INST] ' + s + '\n\n' + m['content'] + '[/INST]' }}{% else %}"
      "{{ '[INST] ' + m['content'] + '[/INST]' }}{% endif %}{% else %}"
      "{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}",
      tokenizer_.get());
  EXPECT_THAT(mistral.status().message(),
              HasSubstr("a system prompt is written into another message"));
}

class ReferenceChat : public ::testing::Test {
 protected:
  static Role RoleOf(const std::string& name) {
    return name == "system" ? Role::kSystem
           : name == "user" ? Role::kUser
                            : Role::kAssistant;
  }
  const nlohmann::json reference_ =
      nlohmann::json::parse(testing::TestData("reference/chat_template.json"));
};

TEST_F(ReferenceChat, TextAndIdsAreThoseOfJinja) {
  SKIP_WITHOUT_MODEL();
  const auto format = ChatFormat::Create(
      reference_["template"].get<std::string>(), ReferenceTokenizer());
  ASSERT_TRUE(format.ok()) << format.status();
  for (const auto& c : reference_["cases"]) {
    std::vector<ChatMessage> messages;
    for (const auto& m : c["messages"]) {
      messages.push_back({RoleOf(m["role"]), m["content"]});
    }
    const auto rendered =
        (*format)->Render(messages, c["add_generation_prompt"]);
    ASSERT_TRUE(rendered.ok()) << rendered.status();
    EXPECT_EQ(rendered->text, c["text"].get<std::string>());
    EXPECT_EQ(rendered->ids, c["ids"].get<std::vector<int32_t>>())
        << rendered->text;
  }
}

TEST_F(ReferenceChat, MessageByMessageGivesTheIdsOfTheWhole) {
  SKIP_WITHOUT_MODEL();
  const auto format = ChatFormat::Create(
      reference_["template"].get<std::string>(), ReferenceTokenizer());
  ASSERT_TRUE(format.ok()) << format.status();
  const auto append = [](std::vector<int32_t>& to,
                         const std::vector<int32_t>& ids) {
    to.insert(to.end(), ids.begin(), ids.end());
  };
  for (const auto& c : reference_["cases"]) {
    std::vector<int32_t> ids;
    bool first = true;
    for (const auto& m : c["messages"]) {
      const Role role = RoleOf(m["role"]);
      const std::string content = m["content"];
      if (first && role == Role::kSystem) {
        append(ids, (*format)->SystemBlock(content));
      } else {
        if (first) append(ids, (*format)->SystemBlock(std::nullopt));
        append(ids, (*format)->Message(role, content));
        append(ids, (*format)->ClosingGlue());
      }
      first = false;
    }
    if (c["add_generation_prompt"]) append(ids, (*format)->AssistantHeader());
    EXPECT_EQ(ids, c["ids"].get<std::vector<int32_t>>()) << c["text"];
  }
}

TEST_F(ReferenceChat, TheModelFileHasTheReferenceTemplate) {
  SKIP_WITHOUT_MODEL();
  const auto file = backends::OpenModelFile(testing::DefaultModelPath(), {});
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(ChatFormat::Create((*file)->tokenizer().chat_template,
                                 ReferenceTokenizer())
                  .ok());
}

}  // namespace
}  // namespace millrace::text
