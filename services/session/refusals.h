// Why a session refuses a message, or ends a turn with an error.
//
// Each names the thing, its value and the way out, and carries its reason
// (services/errors). Pure functions.
#ifndef MILLRACE_SERVICES_SESSION_REFUSALS_H_
#define MILLRACE_SERVICES_SESSION_REFUSALS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace millrace::session {

// ---- Of an append ----
// PREVIOUS_REJECTED: a piece of a text whose earlier piece is missing.
absl::Status PreviousRejected();
// NOT_IN_MESSAGE: text in a chat while no assistant message is open.
absl::Status NotInMessage();
// TURN_OVER: the only turn that it was meant for.
absl::Status TurnOver(uint64_t started_by);
// INVALID_FIELD: the text is longer already.
absl::Status PositionPassed(uint64_t position, int64_t length);
// INVALID_FIELD: the text has ended before.
absl::Status PositionNotReached(int64_t length);
// CACHE_FULL: `tokens` more do not fit into the `room` that is left.
absl::Status NoRoom(int64_t tokens, int64_t room, int64_t limit,
                    absl::string_view policy);

// ---- Of a turn ----
// TURN_RUNNING: one at a time.
absl::Status TurnRunning();
// NO_TURN: nothing to interrupt; or not the one that was meant.
absl::Status NoTurn();
absl::Status NoTurnOf(uint64_t started_by);
// INVALID_FIELD: when it is asked for; when it has its place.
absl::Status NoTextYet();
absl::Status StillNoText();
// DRAINING, to be tried elsewhere.
absl::Status NoNewTurns();
// CACHE_FULL: the text can grow no more.
absl::Status TextFull(int64_t length, absl::string_view policy);
// NONFINITE_LOGITS.
absl::Status NotFinite();

// ---- Of any message ----
// SEQUENCE_GAP: a number was used again, too late for its answer.
absl::Status AnswerForgotten(uint64_t client_seq, uint64_t expected_seq);
// DEVICE_ERROR: ends the session.
absl::Status DeviceFailed();

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_REFUSALS_H_
