// Outbox is what a session says to its client: events as they happen, and
// answers, which are given again when a message is sent twice.
//
//   outbox.Emit(InputAccepted{...});
//   outbox.Reject(7, TurnRunning());
//   outbox.Repeat(7, options);       // message 7 came once more: the same
//
// Not thread-safe.
#ifndef MILLRACE_SERVICES_SESSION_OUTBOX_H_
#define MILLRACE_SERVICES_SESSION_OUTBOX_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "services/engine/generation_options.h"
#include "services/session/answer_memory.h"
#include "services/session/event.h"
#include "services/session/event_log.h"

namespace millrace::session {

class Outbox {
 public:
  using Observer = std::function<void(const EventBody&)>;

  // `log` is borrowed. `on_event`, which may be null, is told all there is to
  // know, before an Output is cut down to what the client wants.
  Outbox(EventLog* log, Observer on_event)
      : log_(log), on_event_(std::move(on_event)) {}

  void Emit(EventBody event);
  // With nothing in it that is not `wanted`; nothing at all if that is all.
  void EmitOutput(Output output, const engine::ResponseOptions& wanted);

  // ---- Answers ----
  // The message is taken, and may be answered from now on.
  void OnMessage(uint64_t client_seq) { answers_.OnMessage(client_seq); }
  void Answer(uint64_t client_seq, EventBody answer);
  // Sent twice it is answered with the options in force then: none are kept.
  void AnswerOptions(uint64_t client_seq, const EffectiveOptions& options);
  void Reject(uint64_t client_seq, const absl::Status& error);
  // The message was sent before. `options`: those in force now.
  void Repeat(uint64_t client_seq, const EffectiveOptions& options);

  // Whether the client has left so much unread that nothing more should come.
  bool Full() const { return log_->Full(); }

 private:
  EventLog* const log_;
  const Observer on_event_;
  AnswerMemory answers_;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_OUTBOX_H_
