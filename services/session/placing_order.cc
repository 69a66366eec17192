#include "services/session/placing_order.h"

namespace millrace::session {
namespace {

using Queue = WaitingItems::Queue;

Queue* UnlessEmpty(Queue* queue) { return queue->empty() ? nullptr : queue; }

Queue* NextWithoutTurn(int64_t length, WaitingItems* waiting) {
  if (waiting->turns() == 0) waiting->EndNextSteps();
  if (Queue* due = waiting->DueAt(length)) return due;
  return UnlessEmpty(waiting->after_turn());
}

// Only a message can come before the turn starts: it ends it.
Queue* NextBeforeTurn(WaitingItems* waiting) {
  Queue* const next_step = waiting->next_step();
  const bool ends =
      !next_step->empty() && HasMessage(*next_step->front().input);
  return ends ? next_step : nullptr;
}

Queue* NextInTurn(int64_t length, WaitingItems* waiting) {
  if (Queue* due = waiting->DueAt(length)) return due;
  Queue* const next_step = waiting->next_step();
  if (next_step->empty()) return nullptr;
  const auto& only = next_step->front().input->only_in_turn_started_by;
  const bool meant_for_later = only && waiting->HasTurnOf(*only);
  return meant_for_later ? nullptr : next_step;
}

}  // namespace

Queue* NextToPlace(TextEnd end, int64_t length, WaitingItems* waiting) {
  switch (end) {
    case TextEnd::kInsideText:
      return UnlessEmpty(waiting->continuation());
    case TextEnd::kNoTurn:
      return NextWithoutTurn(length, waiting);
    case TextEnd::kTurnWaits:
      return NextBeforeTurn(waiting);
    case TextEnd::kWithinCharacter:
      return nullptr;
    case TextEnd::kBetweenCharacters:
      return NextInTurn(length, waiting);
  }
  return nullptr;
}

}  // namespace millrace::session
