// Conversation is the chat without its terminal: what was typed becomes
// messages of the session, what the session says becomes text.
//
//   Conversation conversation(&display, send);
//   conversation.Submit("Tell me of rivers");
//   conversation.Handle(event);       // shows it
//   conversation.Interrupt();
//
// Not thread-safe.
#ifndef MILLRACE_CLIENTS_CLI_CONVERSATION_H_
#define MILLRACE_CLIENTS_CLI_CONVERSATION_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/cli/horizon.h"
#include "millrace/v1/session.pb.h"

namespace millrace::cli {

// Where a conversation shows itself.
class Display {
 public:
  virtual ~Display() = default;
  // What the model writes; goes on where it ended.
  virtual void Text(absl::string_view text) = 0;
  // What the user said, and remarks: lines of their own.
  virtual void Said(absl::string_view line, bool queued) = 0;
  virtual void Note(absl::string_view line) = 0;
  virtual void Status(const std::string& status) = 0;
};

class Conversation {
 public:
  using Send = std::function<uint64_t(v1::ConnectRequest)>;

  // `display` is borrowed.
  Conversation(Display* display, Send send,
               std::function<absl::Time()> now = absl::Now)
      : display_(display), send_(std::move(send)), now_(std::move(now)) {}

  // The session that what follows belongs to.
  void Begin(const v1::SessionOpened& opened);

  // A message of the user. While the model writes, it waits for its end.
  void Submit(absl::string_view line);
  // Text that goes into what the model is writing, before its next token.
  void InsertNow(absl::string_view text);
  // Ends the reply; the text is cut to what was shown. Returns whether there
  // was one.
  bool Interrupt();
  void Reset();

  void Handle(const v1::ConnectResponse& event);

  // Turns that were asked for and have not ended.
  int pending_turns() const { return pending_turns_; }
  bool closed() const { return closed_; }
  // For /stats: several lines.
  std::string Stats() const;

 private:
  void HandleOutput(const v1::TokenOutput& output);
  void HandleTurnFinished(const v1::TurnFinished& turn);
  void HandleCacheUpdate(const v1::CacheUpdate& update);
  void HandleRejected(const v1::Rejected& rejected);
  void ShowHorizon();
  // Which text the model no longer sees.
  std::string Forgotten() const;
  void ShowStatus();

  Display* const display_;
  const Send send_;
  const std::function<absl::Time()> now_;
  v1::SessionOpened opened_;
  Horizon horizon_;
  v1::Usage usage_;           // of the last turn
  uint64_t position_ = 0;     // tokens of the text
  uint64_t shown_until_ = 0;  // tokens whose text was shown
  uint64_t evicted_ = 0;
  uint64_t forgotten_end_ = 0;  // one past the last that was evicted
  uint64_t visible_ = 0;
  uint32_t sinks_ = 0, window_ = 0;  // once something was evicted
  int pending_turns_ = 0;
  bool writing_ = false;  // between turn_started and turn_finished
  bool closed_ = false;
  uint64_t turn_tokens_ = 0;
  absl::Time turn_start_;
  double tokens_per_second_ = 0;
};

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_CONVERSATION_H_
