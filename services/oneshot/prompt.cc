#include "services/oneshot/prompt.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "services/errors/errors.h"

namespace millrace::oneshot {
namespace {

using session::Input;
using session::MessageInput;
using session::TextInput;
using text::SpecialTokens;

bool IsMessage(const Input& input) {
  return std::holds_alternative<MessageInput>(input);
}

absl::StatusOr<Prompt> FromMessages(absl::Span<const Input> inputs,
                                    const TextTools& tools,
                                    bool add_assistant_header) {
  if (tools.chat_format == nullptr) return tools.chat_status;
  std::vector<text::ChatMessage> messages;
  for (const Input& input : inputs) {
    const auto& message = std::get<MessageInput>(input);
    messages.push_back({message.role, message.content});
  }
  auto rendered = tools.chat_format->Render(messages, add_assistant_header);
  if (!rendered.ok()) {
    return errors::InvalidField("inputs", rendered.status().message());
  }
  Prompt prompt{.ids = std::move(rendered->ids),
                .pinned_tokens = 0,
                .rendered_text = std::move(rendered->text),
                .is_chat = true};
  if (messages.front().role == text::Role::kSystem) {
    const auto block =
        tools.chat_format->SystemBlock(absl::string_view(messages[0].content));
    prompt.pinned_tokens = static_cast<int64_t>(block.size());
  }
  return prompt;
}

Prompt FromPieces(absl::Span<const Input> inputs, const TextTools& tools) {
  Prompt prompt;
  prompt.ids = tools.tokenizer->text_prefix();
  TextInput joined;
  const auto flush = [&] {
    const auto ids = tools.tokenizer->Encode(
        joined.text, joined.parse_special_tokens ? SpecialTokens::kParsed
                                                 : SpecialTokens::kAsText);
    prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
    joined.text.clear();
  };
  for (const Input& input : inputs) {
    const auto* text = std::get_if<TextInput>(&input);
    if (text == nullptr ||
        text->parse_special_tokens != joined.parse_special_tokens) {
      flush();
    }
    if (text != nullptr) {
      joined.text += text->text;
      joined.parse_special_tokens = text->parse_special_tokens;
    } else {
      const auto& ids = std::get<std::vector<int32_t>>(input);
      prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
    }
  }
  flush();
  return prompt;
}

}  // namespace

absl::StatusOr<Prompt> BuildPrompt(absl::Span<const Input> inputs,
                                   const TextTools& tools,
                                   bool add_assistant_header) {
  if (!absl::c_any_of(inputs, IsMessage)) return FromPieces(inputs, tools);
  if (absl::c_all_of(inputs, IsMessage)) {
    return FromMessages(inputs, tools, add_assistant_header);
  }
  return errors::InvalidField(
      "inputs", "inputs are chat messages alone, or none of them is one");
}

}  // namespace millrace::oneshot
