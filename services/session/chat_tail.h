// ChatTail knows how the text of a chat ends, and so what template text must
// stand before whatever comes next.
//
//   between    a header can follow at once
//   ended      a message has ended; its closing glue is still due
//   open       inside an assistant message: text can be added
//
// In a plain text nothing is ever due, and text can be added anywhere.
// Not thread-safe.
#ifndef MILLRACE_SERVICES_SESSION_CHAT_TAIL_H_
#define MILLRACE_SERVICES_SESSION_CHAT_TAIL_H_

#include <cstdint>
#include <vector>

#include "services/engine/generation_options.h"
#include "services/session/command.h"
#include "services/text/chat_format.h"

namespace millrace::session {

class ChatTail {
 public:
  // `format` is borrowed; null: plain text.
  explicit ChatTail(const text::ChatFormat* format) : format_(format) {}

  bool in_message() const { return format_ == nullptr || end_ == End::kOpen; }

  // What ends the message before, glue included.
  std::vector<int32_t> BeforeMessage() const;
  // What opens an assistant message.
  std::vector<int32_t> AssistantPrefix() const;
  // Whether a turn goes on with the same assistant message as the last one.
  bool continues() const { return format_ && end_ == End::kOpen && continues_; }

  void OnMessage();
  void OnTurnStarted();
  void OnTurnFinished(engine::FinishReason reason);
  // The text is back at the system block.
  void OnReset() { end_ = End::kBetween; }

 private:
  enum class End { kBetween, kEnded, kOpen };

  const text::ChatFormat* const format_;
  End end_ = End::kBetween;
  bool continues_ = false;
};

// The tokens of an input as they are written behind that tail, which moves on:
// template text goes before each message, whatever the text ends with.
std::vector<int32_t> Render(const PreparedInput& input, ChatTail* tail);

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_CHAT_TAIL_H_
