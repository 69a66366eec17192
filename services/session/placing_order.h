// The order in which what waits gets its place in the text.
//
//   the text so far              comes next
//   ---------------------------  -------------------------------------------
//   ends inside a text           the rest of that text, and nothing else
//   no turn                      what is due at its length; else what waits
//                                for the end of a turn, the first one first
//   a turn that still waits      a message for the next step: it ends the turn
//   a turn, within a character   nothing
//   a turn, between characters   what is due at its length; else what is meant
//                                for the next step of this turn
//
// A decision on facts: nothing is placed here.
#ifndef MILLRACE_SERVICES_SESSION_PLACING_ORDER_H_
#define MILLRACE_SERVICES_SESSION_PLACING_ORDER_H_

#include <cstdint>

#include "services/session/waiting_items.h"

namespace millrace::session {

// How the text ends, for what could come next.
enum class TextEnd {
  kInsideText,         // with a piece of a text of which more follows
  kNoTurn,             // outside of any turn that has its place
  kTurnWaits,          // where a turn is going to start
  kWithinCharacter,    // in a turn that decodes
  kBetweenCharacters,  // in a turn that decodes
};

// The queue of `waiting` whose first item has its turn now; null if all have to
// wait. Without any turn, what was meant for the next step of one now comes
// after it (WaitingItems::EndNextSteps).
WaitingItems::Queue* NextToPlace(TextEnd end, int64_t length,
                                 WaitingItems* waiting);

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_PLACING_ORDER_H_
