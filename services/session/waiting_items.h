// WaitingItems are the inputs and turns of a session that wait for their place
// in the text.
//
// Four queues: what goes into the running turn (next step), what comes after it
// (after turn), what has a text position of its own, and the pieces of a text
// whose beginning is already placed (continuation). Not thread-safe.
#ifndef MILLRACE_SERVICES_SESSION_WAITING_ITEMS_H_
#define MILLRACE_SERVICES_SESSION_WAITING_ITEMS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "services/engine/generation_options.h"
#include "services/session/command.h"

namespace millrace::session {

struct TurnRequest {
  uint64_t started_by = 0;
  engine::GenerationOptions options;
  bool new_message = false;
  absl::Time requested;
};

// An input, a turn, or an input and the turn that follows it.
struct WaitingItem {
  uint64_t client_seq = 0;
  uint64_t text_seq = 0;  // client_seq of the first piece of the input's text
  std::optional<PreparedInput> input = std::nullopt;
  std::optional<TurnRequest> turn = std::nullopt;
};

// Tokens of the parts, template text between them not counted.
int64_t NumTokens(const PreparedInput& input);
bool HasMessage(const PreparedInput& input);

class WaitingItems {
 public:
  using Queue = std::deque<WaitingItem>;

  // Into the queue that its placement names; while nothing `writing`, behind
  // everything that came before.
  void Push(WaitingItem item, bool writing);
  // A piece of a text, behind the piece before it; `before_is_placed` says that
  // the piece before waits no more.
  void PushPiece(WaitingItem item, uint64_t seq_before, bool before_is_placed);
  // Takes the first item. If a text goes on behind it, the pieces that wait
  // become the continuation.
  WaitingItem Pop(Queue* queue);

  // What was meant for a turn that has ended comes next, before all that waits
  // for its end. What is meant for a turn that still waits stays.
  void EndNextSteps();
  // The text breaks off: removes the pieces that wait.
  std::vector<WaitingItem> TakeContinuation();
  // The piece of that number, if it still waits, is the last of its text.
  void EndText(uint64_t client_seq);
  // Removes everything.
  std::vector<WaitingItem> TakeAll();
  // Removes the turn of the message `started_by`, the first one if unset; its
  // input stays.
  std::optional<TurnRequest> TakeTurn(std::optional<uint64_t> started_by);

  // Turns that will come without the text getting any longer first: those that
  // wait for a text position do not count.
  bool HasTurnOf(uint64_t started_by) const;
  int64_t turns() const { return turns_; }
  int64_t tokens() const { return tokens_; }
  bool empty() const;
  // What waits for a text position only.
  bool only_positioned() const;

  Queue* next_step() { return &next_step_; }
  Queue* after_turn() { return &after_turn_; }
  Queue* continuation() { return &continuation_; }
  // The items for text positions up to `length`: null if there is none.
  Queue* DueAt(int64_t length);

 private:
  void Count(const Queue& queue, const WaitingItem& item, int sign);

  Queue next_step_, after_turn_, positioned_, continuation_;
  int64_t turns_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_WAITING_ITEMS_H_
