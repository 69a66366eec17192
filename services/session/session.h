// Session is the state machine of an endless session: messages of the client
// and rows of the engine go in, events come out.
//
//   IDLE      all input read, no turn       append -> READING
//   READING   input is being read           generate -> WRITING
//   WRITING   a turn waits or decodes       turn finished -> READING, IDLE
//   PAUSED    WRITING, but the client has not read enough
//   CLOSED    the end
//
// (README.md has the whole table. NEW and DETACHED are the store's: the first
// comes before there is a session, the second is about who listens.)
//
// What waits is placed into the text one item at a time, each when the one
// before is almost read, so memory stays bounded whatever waits. A turn starts
// when all input before it is read. Every text position is told exactly once:
// InputAccepted, TurnStarted or Output.
//
// Everything is called on the engine thread, but Snapshot.
#ifndef MILLRACE_SERVICES_SESSION_SESSION_H_
#define MILLRACE_SERVICES_SESSION_SESSION_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cache/policies/registry.h"
#include "cache/text_range.h"
#include "services/engine/engine.h"
#include "services/engine/sampling/recent_tokens.h"
#include "services/engine/turn.h"
#include "services/session/answer_memory.h"
#include "services/session/cache_reporter.h"
#include "services/session/chat_tail.h"
#include "services/session/command.h"
#include "services/session/event.h"
#include "services/session/event_log.h"
#include "services/session/input_credit.h"
#include "services/session/waiting_items.h"

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
  // A turn that has its place: it waits for its input to be read, or decodes.
  struct ActiveTurn {
    uint64_t number = 0;
    TurnRequest request;
    std::unique_ptr<engine::Turn> writer;  // once it has started
    int64_t earliest_cut = 0;  // behind its prefix and what was placed in it
    bool started = false;
    absl::Time start_time, first_token, last_token;
    uint64_t generated = 0;
    bool decodes() const { return writer != nullptr; }
  };
  // An input that is placed and not yet read to its end.
  struct ReadingInput {
    uint64_t client_seq = 0;
    cache::TextRange range;
    absl::Time begun, last_progress;
  };
  struct Counts {
    uint64_t input_tokens = 0, generated_tokens = 0, evicted_tokens = 0;
  };

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

  absl::Status CheckAppend(const PreparedInput& input) const;
  absl::Status CheckRoom(int64_t tokens, int64_t waiting) const;
  absl::Status CheckDraining() const;
  TurnRequest Request(uint64_t seq, StartTurn start) const;

  // ---- What comes next ----
  void Advance();
  WaitingItems::Queue* NextQueue();
  WaitingItems::Queue* NextInTurn();
  WaitingItems::Queue* NextOutsideTurns();
  void Place(WaitingItem item);
  absl::Status CheckPlace(const PreparedInput& input) const;
  void WriteInput(uint64_t seq, PreparedInput& input);
  bool TurnCanStart() const;
  void MakeTurn(TurnRequest request);
  void StartTurnNow();
  void UpdateWantedLogits();
  void CloseIfOver();

  // ---- A turn ----
  void Decode(absl::Span<const float> logits);
  void EmitText(std::string text);
  void FinishTurn(engine::FinishReason reason,
                  const absl::Status& error = absl::OkStatus(),
                  std::optional<engine::StopMatch> match = std::nullopt);
  void CutTo(uint64_t keep_until);
  // Ends a turn that has no place yet.
  void FinishWaiting(TurnRequest request, engine::FinishReason reason,
                     const absl::Status& error = absl::OkStatus());
  void DropWaiting(engine::FinishReason reason,
                   const absl::Status& error = absl::OkStatus());
  bool AtCapacity(int64_t more) const;

  // ---- Reading ----
  void FinishReading(int64_t computed);
  void ReportProgress(ReadingInput& input, int64_t computed);
  void Report(int64_t length);
  void ReportAll(int64_t length);
  void ReadSystemBlock();

  // ---- Small things ----
  void Emit(EventBody event);
  void Reject(uint64_t seq, const absl::Status& error);
  // Rejects an input that waits, or that came too late.
  void RejectInput(uint64_t seq, const PreparedInput& input,
                   const absl::Status& error);
  // The text in pieces ends here; the rest of it will be rejected.
  void BreakText(bool more_follows);
  // The text in pieces ends here as if that had been its last piece.
  void EndText();
  void Answer(uint64_t seq, EventBody answer);
  void AnswerOptions(uint64_t seq);
  // As the input would be written after everything that waits.
  int64_t TokensAhead(const PreparedInput& input) const;
  // Tokens of the text that are read or written: what evictions follow from.
  int64_t TextRead() const;
  void PauseWhileFull();
  void Publish();
  bool writing() const { return turn_ || waiting_.turns() > 0; }
  bool waits_for_client() const;
  State state() const;
  int64_t length() const { return sequence_->length(); }
  const engine::ResponseOptions& response() const;
  Usage UsageSince(const Counts& since) const;
  Usage TakeTurnUsage();

  const Context context_;
  EffectiveOptions options_;
  const cache::MadePolicy policy_;
  const std::vector<int32_t> system_ids_;
  const std::optional<int64_t> text_limit_;  // of a policy that never evicts

  std::unique_ptr<engine::Sequence> sequence_;  // null: closed
  engine::RecentTokens recent_;
  CacheReporter reporter_;
  ChatTail tail_;
  AnswerMemory answers_;

  WaitingItems waiting_;
  std::deque<ReadingInput> reading_;
  std::optional<ActiveTurn> turn_;
  engine::Logits wanted_ = engine::Logits::kNone;
  // A text comes in pieces: the last one that was taken is not its end; the
  // last one that was placed is not.
  bool more_follows_ = false;
  bool text_open_ = false;
  uint64_t last_piece_ = 0;     // client_seq of the last piece that was taken
  bool text_rejected_ = false;  // the rest of the text will be
  bool half_closed_ = false;
  bool draining_ = false;

  uint64_t turns_ = 0;
  Counts total_, at_last_turn_;
  int64_t peak_resident_ = 0;
  absl::Time last_active_;
  std::optional<absl::Time> paused_since_;
  uint64_t times_paused_ = 0;

  mutable absl::Mutex mutex_;
  Snapshot snapshot_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_SESSION_H_
