#include "services/session/refusals.h"

#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"

namespace millrace::session {
namespace {

using errors::InvalidField;
using errors::MakeError;
using errors::Reason;

absl::Status Refusal(Reason reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

absl::Status NotRunning(Reason reason, uint64_t started_by) {
  return Refusal(reason, absl::StrCat("no turn that message ", started_by,
                                      " started is running"));
}

}  // namespace

absl::Status PreviousRejected() {
  return Refusal(Reason::kPreviousRejected,
                 "an earlier piece of this text was rejected or dropped; send "
                 "the rest as a new text");
}

absl::Status NotInMessage() {
  return Refusal(Reason::kNotInMessage,
                 "text and token ids can be added inside an assistant message "
                 "only, and none is open; send a chat message");
}

absl::Status TurnOver(uint64_t started_by) {
  return NotRunning(Reason::kTurnOver, started_by);
}

absl::Status PositionPassed(uint64_t position, int64_t length) {
  return InvalidField(
      "at_text_position",
      absl::StrCat("at_text_position=", position, " has passed; the text has ",
                   length, " tokens"));
}

absl::Status PositionNotReached(int64_t length) {
  return InvalidField("at_text_position",
                      absl::StrCat("the text ends with ", length,
                                   " tokens, before that position"));
}

absl::Status NoRoom(int64_t tokens, int64_t room, int64_t limit,
                    absl::string_view policy) {
  return Refusal(
      Reason::kCacheFull,
      absl::StrCat("append ", tokens, " tokens: policy '", policy,
                   "' has room for ", room, " of ", limit,
                   "; reset the session, or open one with a bounded policy, "
                   "such as 'sinks'"));
}

absl::Status TurnRunning() {
  return Refusal(Reason::kTurnRunning,
                 "a turn is running or waiting already; "
                 "interrupt it, or wait for turn_finished");
}

absl::Status NoTurn() {
  return Refusal(Reason::kNoTurn, "no turn is running; it may just have ended");
}

absl::Status NoTurnOf(uint64_t started_by) {
  return NotRunning(Reason::kNoTurn, started_by);
}

absl::Status NoTextYet() {
  return InvalidField("generate",
                      "there is no text to go on from; append some");
}

absl::Status StillNoText() {
  return InvalidField("generate", "there is no text to go on from");
}

absl::Status NoNewTurns() {
  return MakeError(absl::StatusCode::kUnavailable, Reason::kDraining,
                   "the server is about to end and takes no new turns; open a "
                   "session with another one",
                   {.retry_after = absl::Seconds(1)});
}

absl::Status TextFull(int64_t length, absl::string_view policy) {
  return Refusal(Reason::kCacheFull,
                 absl::StrCat("the text has ", length,
                              " tokens, all that policy '", policy, "' holds"));
}

absl::Status NotFinite() {
  return MakeError(absl::StatusCode::kInternal, Reason::kNonfiniteLogits,
                   "the model's logits are not finite");
}

absl::Status AnswerForgotten(uint64_t client_seq, uint64_t expected_seq) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, Reason::kSequenceGap,
      absl::StrCat("client_seq=", client_seq,
                   " was used; its answer is no longer kept"),
      {.metadata = {{"expected_seq", absl::StrCat(expected_seq)}}});
}

absl::Status DeviceFailed() {
  return MakeError(absl::StatusCode::kInternal, Reason::kDeviceError,
                   "the backend failed to compute a step");
}

}  // namespace millrace::session
