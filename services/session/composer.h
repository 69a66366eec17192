// Composer puts the text of a session together: inputs and turns wait, and get
// their places one after the other.
//
//   composer.AddInput(2, input, std::nullopt);
//   composer.AddTurn(3, request);
//   composer.Advance();                    // places what has its turn now
//   composer.OnRows(computed, {.logits = logits}, now, 256);
//   composer.Advance();                    // ... all is read: the turn starts
//
// An input is placed when the one before is almost read, so little is placed
// ahead whatever waits; NextToPlace says which. A turn starts when all before
// it is read. It gets its number with its place, or when it ends without one.
//
// A text may come in pieces, inputs of which each says that more follows. They
// are contiguous: from the first to the last nothing is written between them,
// and no turn starts.
//
// Not thread-safe. REQUIRES: an open text.
#ifndef MILLRACE_SERVICES_SESSION_COMPOSER_H_
#define MILLRACE_SERVICES_SESSION_COMPOSER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/session/active_turn.h"
#include "services/session/command.h"
#include "services/session/input_checks.h"
#include "services/session/input_credit.h"
#include "services/session/outbox.h"
#include "services/session/placing_order.h"
#include "services/session/session_text.h"
#include "services/session/waiting_items.h"
#include "services/text/tokenizer.h"

namespace millrace::session {

class Composer {
 public:
  // Borrowed; outlive it.
  struct Context {
    const text::Tokenizer* tokenizer = nullptr;
    SessionText* text = nullptr;
    Outbox* outbox = nullptr;
    InputCredit* credit = nullptr;  // goes back when an input waits no more
    std::function<absl::Time()> now;
    // Input is placed while fewer tokens than that wait to be computed.
    int64_t read_ahead_tokens = 64;
  };

  explicit Composer(Context context) : context_(std::move(context)) {}

  // ---- What is asked for ----

  // An input that CheckAppend lets pass, and perhaps the turn behind it.
  void AddInput(uint64_t seq, PreparedInput input,
                std::optional<TurnRequest> turn);
  // REQUIRES: not writing.
  void AddTurn(uint64_t seq, TurnRequest request);
  // Rejects an input that has come, and what is to come of its text.
  void RejectInput(uint64_t seq, const PreparedInput& input,
                   const absl::Status& error);
  // The text in pieces ends here; the rest of it will be rejected.
  void BreakText(bool more_follows);
  // The text in pieces ends here as if that had been its last piece.
  void EndText();

  // Ends the turn that message `started_by` asked for, the first one if unset,
  // with INTERRUPTED, cut back to `keep_until` tokens. False if there is none.
  // With `drop_waiting` it then ends all turns that wait, and drops all inputs
  // that do.
  bool Interrupt(std::optional<uint64_t> started_by,
                 std::optional<uint64_t> keep_until, bool drop_waiting);
  // Ends all turns, and drops all that waits.
  void Stop(const TurnEnd& end);
  // Begins anew, behind the system block.
  void Reset();

  // ---- What comes of it ----

  // Places and starts all that has its turn now.
  void Advance();
  // The first `computed` tokens are read. A turn picks its next token, unless
  // an input goes before it. `interval_tokens`: how often evictions are told
  // outside of turns.
  void OnRows(int64_t computed, const engine::NextToken& next, absl::Time now,
              int64_t interval_tokens);
  // How a backend picks the turn's next token, or the one after it:
  // engine::Turn.
  std::optional<backends::RowSampling> HowToPick(int unknown_tokens) const;
  // All is read and written that can be, unless more is asked for.
  bool Over() const;
  // Rejects what waits for a text position. REQUIRES: Over.
  void RejectRest();

  // ---- How it is ----

  // Whether a turn runs, or will without being asked for once more.
  bool writing() const { return situation().writing(); }
  // Whether there is input to be read, placed or not.
  bool reading() const;
  // Whether there is nothing to compute until the client says something.
  bool waits_for_client() const;
  // The number of the turn that has its place; 0: none.
  uint64_t turn() const { return turn_ ? turn_->number() : 0; }
  // Whether a turn would have no text before it.
  bool NothingToGoOnFrom() const;
  // `draining` is not known here.
  InputSituation situation() const;

 private:
  bool TurnCanStart() const;
  WaitingItems::Queue* NextQueue();
  TextEnd text_end() const;
  void Place(WaitingItem item);
  // Rejects an input whose place has come, and what waits of its text.
  void RejectPlace(const WaitingItem& item, const absl::Status& error);
  void GiveBack(uint64_t seq, const PreparedInput& input,
                const absl::Status& error);
  void PlaceTurn(uint64_t seq, TurnRequest request);
  void WriteInput(uint64_t seq, const PreparedInput& input);
  void FinishTurn(TurnEnd end);
  // Ends a turn that has no place yet.
  void FinishWaiting(const TurnRequest& request, const TurnEnd& end);
  std::vector<WaitingItem> TakeWaiting();
  void EndDropped(const std::vector<WaitingItem>& items, const TurnEnd& end);

  SessionText& text() const { return *context_.text; }

  const Context context_;
  WaitingItems waiting_;
  std::optional<ActiveTurn> turn_;
  uint64_t turns_ = 0;  // that have a number

  // A text comes in pieces: the last one that was taken is not its end; the
  // last one that was placed is not.
  bool more_follows_ = false;
  bool text_open_ = false;
  uint64_t text_seq_ = 0;       // client_seq of its first piece
  uint64_t last_piece_ = 0;     // client_seq of the last piece that was taken
  bool text_rejected_ = false;  // the rest of the text will be
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_COMPOSER_H_
