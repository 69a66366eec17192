// Inbox makes commands of what a client says: it checks numbers, keeps to the
// credit for input, and tokenises.
//
//   Inbox inbox(context);
//   session.Handle(inbox.Prepare(message));   // on the engine thread
//
// Messages come one at a time, in the client's order; not thread-safe.
#ifndef MILLRACE_SERVICES_SESSION_INBOX_H_
#define MILLRACE_SERVICES_SESSION_INBOX_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "services/session/client_message.h"
#include "services/session/command.h"
#include "services/session/input_credit.h"
#include "services/text/chat_format.h"
#include "services/text/streaming_encoder.h"
#include "services/text/tokenizer.h"

namespace millrace::session {

class Inbox {
 public:
  // Borrowed; outlive the inbox. `chat_format` is null in a plain text.
  Inbox(const text::Tokenizer* tokenizer, const text::ChatFormat* chat_format,
        InputCredit* credit)
      : tokenizer_(tokenizer), chat_format_(chat_format), credit_(credit) {}

  // What a session can do with the message; a Refused one if nothing.
  Command Prepare(ClientMessage message);

 private:
  // An encoder of a text that may go on.
  struct OpenText {
    text::StreamingEncoder encoder;
    bool parses_special_tokens;
  };

  Command PrepareAppend(uint64_t client_seq, AppendInput append);
  absl::Status Check(const AppendInput& append) const;
  void Add(const Input& input, PreparedInput* prepared);
  void AddText(const TextInput& input, PreparedInput* prepared);
  void FinishText(PreparedInput* prepared);

  const text::Tokenizer* const tokenizer_;
  const text::ChatFormat* const chat_format_;
  InputCredit* const credit_;
  uint64_t next_seq_ = 2;  // `open` was 1
  bool more_follows_ = false;
  std::optional<OpenText> text_;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_INBOX_H_
