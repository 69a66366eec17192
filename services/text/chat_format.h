// ChatFormat renders a conversation message by message, in token ids, as the
// model's chat template renders the whole.
//
// An endless session keeps no transcript, so only templates work for which
// rendering k messages is a prefix of rendering k + 1, contents verbatim.
// Create finds out by trying.
//
//   SystemBlock                 <|im_start|>system\nBe brief.<|im_end|>  \n
//   Message(kUser, "Hi")        <|im_start|>user\nHi<|im_end|>
//   ClosingGlue                 \n
//   AssistantHeader             <|im_start|>assistant\n
//   ... what the model writes, its end-of-turn token last ...
//   ClosingGlue                 \n          goes to the next input or turn
//
// Special tokens are recognised in the template's own text only; contents stay
// text, whatever they spell.
//
// Thread-safe: immutable after construction.
#ifndef MILLRACE_SERVICES_TEXT_CHAT_FORMAT_H_
#define MILLRACE_SERVICES_TEXT_CHAT_FORMAT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/text/tokenizer.h"

namespace millrace::text {

enum class Role { kSystem, kUser, kAssistant };

struct ChatMessage {
  Role role = Role::kUser;
  std::string content;
};

struct RenderedChat {
  std::string text;
  std::vector<int32_t> ids;
};

class ChatFormat {
 public:
  // FAILED_PRECONDITION: NO_CHAT_TEMPLATE if `chat_template` is empty,
  // CHAT_TEMPLATE_NOT_INCREMENTAL, with the reason, if it does not fit or uses
  // what this Jinja subset lacks. `tokenizer` is borrowed.
  static absl::StatusOr<std::unique_ptr<const ChatFormat>> Create(
      absl::string_view chat_template, const Tokenizer* tokenizer);

  virtual ~ChatFormat() = default;

  // What stands before the first message that is not SYSTEM: the sink token, if
  // the model has one, and the prompt; with nullopt the template's own default,
  // which may be nothing. Ends with its glue, so a message or an assistant
  // header can follow.
  virtual std::vector<int32_t> SystemBlock(
      std::optional<absl::string_view> prompt) const = 0;

  // A later message, its end-of-turn token included, closing glue not.
  virtual std::vector<int32_t> Message(Role role,
                                       absl::string_view content) const = 0;

  // Opens an assistant message.
  virtual const std::vector<int32_t>& AssistantHeader() const = 0;
  // Ends a message that was broken off: the end-of-turn token.
  virtual const std::vector<int32_t>& EndMessage() const = 0;
  // Stands between an ended message and whatever follows; often empty.
  virtual const std::vector<int32_t>& ClosingGlue() const = 0;

  // A whole conversation at once: the text as the template gives it, the ids
  // with the sink token in front, if the model has one. INVALID_ARGUMENT
  // if the template refuses it (roles that do not alternate, say).
  virtual absl::StatusOr<RenderedChat> Render(
      absl::Span<const ChatMessage> messages,
      bool add_assistant_header) const = 0;
};

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_CHAT_FORMAT_H_
