// Session is the state machine of an endless session: messages of the client
// and rows of the engine go in, events come out.
//
//   IDLE      all input read, no turn       append -> READING
//   READING   input is being read           generate -> WRITING
//   WRITING   a turn waits or decodes       turn finished -> READING, IDLE
//   PAUSED    WRITING, but the client has not read enough
//   CLOSED    the end
//
// (README.md has the whole table; session.cc is that table in code. NEW and
// DETACHED are the store's: the first comes before there is a session, the
// second is about who listens.)
//
// Every text position is told exactly once: InputAccepted, TurnStarted or
// Output.
//
// The session decides what a message means; its parts know the rest: Composer
// (what gets its place next, and turns), SessionText (the text and its cache),
// Outbox (what is told), CheckAppend (what is refused).
//
// Everything is called on the engine thread, but Snapshot.
#ifndef MILLRACE_SERVICES_SESSION_SESSION_H_
#define MILLRACE_SERVICES_SESSION_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cache/policies/registry.h"
#include "services/engine/engine.h"
#include "services/session/command.h"
#include "services/session/composer.h"
#include "services/session/event.h"
#include "services/session/event_log.h"
#include "services/session/input_credit.h"
#include "services/session/outbox.h"
#include "services/session/session_text.h"

namespace millrace::session {

class Session final : public engine::SequenceClient {
 public:
  // What a session works with. Pointers are borrowed and outlive it.
  struct Context {
    const text::Tokenizer* tokenizer = nullptr;
    const text::ChatFormat* chat_format = nullptr;  // null: plain text
    EventLog* log = nullptr;
    InputCredit* credit = nullptr;
    std::function<absl::Time()> now;
    std::function<void(const EventBody&)> on_event;  // may be null
    // After the last event; the session may not be destroyed in it.
    std::function<void(CloseReason)> on_closed;
    // Input is placed while fewer tokens than that wait to be computed.
    int64_t read_ahead_tokens = 64;
  };

  Session(Context context, EffectiveOptions options, cache::MadePolicy policy,
          std::vector<int32_t> system_ids);

  // Begins with `opened`, whose options and system block are filled in here.
  void Start(std::unique_ptr<engine::Sequence> sequence, Opened opened);

  void Handle(Command command);
  // The log was full and is not any more.
  void OnDrained();
  // Tells the client that the server is about to end; no new turns.
  void StartDrain(const GoAway& go_away);
  // A stream has taken the session up.
  void OnResumed(bool gap);
  // Ends it now: turns are over, input is dropped.
  void Close(CloseReason reason, const absl::Status& error = absl::OkStatus());

  void OnRows(int64_t first, int64_t count,
              absl::Span<const float> logits) override;
  std::optional<backends::RowSampling> HowToPick(int unknown_tokens) override {
    return composer_.HowToPick(unknown_tokens);
  }
  void OnPicked(int64_t first, int64_t count, int32_t id) override;
  void OnError(const absl::Status& status) override;

  struct Snapshot {
    State state = State::kReading;
    Usage usage;
    absl::Time last_active;
    std::optional<absl::Time> paused_since;
    // Nothing to compute until the client says something.
    bool waits_for_client = false;
    uint64_t times_paused = 0;
  };
  // Any thread; as of the last call.
  Snapshot snapshot() const;

 private:
  // ---- Messages, one for each kind ----
  void On(uint64_t seq, PreparedInput& input);
  void On(uint64_t seq, StartTurn& start);
  void On(uint64_t seq, Interrupt& interrupt);
  void On(uint64_t seq, UpdateOptions& update);
  void On(uint64_t seq, ResetSession&);
  void On(uint64_t seq, CloseSession&);
  void On(uint64_t seq, HalfClose&);
  void On(uint64_t seq, Refused& refused);
  void On(uint64_t seq, Repeated&);
  void On(uint64_t seq, OutOfOrder& gap);

  // The first `computed` tokens are computed.
  void AfterStep(int64_t computed, const engine::NextToken& next);
  TurnRequest Request(uint64_t seq, StartTurn start) const;
  bool writing() const { return composer_.writing(); }
  State state() const;
  // After each message and each step: places what can be, pauses, ends.
  void Advance();
  void PauseWhileFull();
  void Publish();

  const Context context_;
  EffectiveOptions options_;
  Outbox outbox_;
  SessionText text_;  // open until the session is closed
  Composer composer_;
  bool half_closed_ = false;
  bool draining_ = false;
  absl::Time last_active_;
  std::optional<absl::Time> paused_since_;
  uint64_t times_paused_ = 0;

  mutable absl::Mutex mutex_;
  Snapshot snapshot_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_SESSION_H_
