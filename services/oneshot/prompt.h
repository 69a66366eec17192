// The text of a request that is no session, as tokens.
//
//   BuildPrompt({TextInput{"Once"}, TextInput{" upon"}}, {&tokenizer}, true)
//   // the ids of "Once upon"
//
// Either chat messages alone, rendered as one conversation, or any other
// inputs: adjacent texts of one kind are joined before they are tokenised.
#ifndef MILLRACE_SERVICES_ONESHOT_PROMPT_H_
#define MILLRACE_SERVICES_ONESHOT_PROMPT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/session/client_message.h"
#include "services/text/chat_format.h"
#include "services/text/tokenizer.h"

namespace millrace::oneshot {

struct TextTools {
  const text::Tokenizer* tokenizer = nullptr;
  const text::ChatFormat* chat_format = nullptr;  // null: no usable template
  absl::Status chat_status;                       // then: why not
};

struct Prompt {
  // What the model's own settings put in front included.
  std::vector<int32_t> ids;
  // Of a leading SYSTEM message: the tokens that policies pin.
  int64_t pinned_tokens = 0;
  std::string rendered_text;  // of chat messages; else empty
  bool is_chat = false;
};

// INVALID_FIELD for a mixture; the chat status for messages without a usable
// template.
absl::StatusOr<Prompt> BuildPrompt(absl::Span<const session::Input> inputs,
                                   const TextTools& tools,
                                   bool add_assistant_header);

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_PROMPT_H_
