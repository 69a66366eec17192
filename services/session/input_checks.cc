#include "services/session/input_checks.h"

#include "services/session/chat_tail.h"
#include "services/session/refusals.h"

namespace millrace::session {
namespace {

// Of a text's first piece: the others follow it wherever it goes.
absl::Status CheckBeginning(const PreparedInput& input,
                            const InputSituation& now) {
  const auto& only = input.only_in_turn_started_by;
  if (only && now.turn_of != *only && !now.waiting.HasTurnOf(*only)) {
    return TurnOver(*only);
  }
  const auto* at = std::get_if<AtTextPosition>(&input.placement);
  if (at && at->position < static_cast<uint64_t>(now.text.length())) {
    return PositionPassed(at->position, now.text.length());
  }
  if (!now.text.tail().in_message() && !now.writing() &&
      !input.parts.front().is_message) {
    return NotInMessage();
  }
  return absl::OkStatus();
}

// A message is whole: no text can be added behind it.
bool HasTextBehindMessage(const PreparedInput& input) {
  for (size_t i = 1; i < input.parts.size(); ++i) {
    if (input.parts[i - 1].is_message && !input.parts[i].is_message) {
      return true;
    }
  }
  return false;
}

int64_t CountTokens(const PreparedInput& input, ChatTail tail) {
  return static_cast<int64_t>(Render(input, &tail).size());
}

}  // namespace

absl::Status CheckAppend(const PreparedInput& input,
                         const InputSituation& situation) {
  if (input.continues && situation.text_rejected) return PreviousRejected();
  if (input.then_generate && situation.draining) return NoNewTurns();
  if (!input.continues) {
    absl::Status status = CheckBeginning(input, situation);
    if (!status.ok()) return status;
  }
  if (HasTextBehindMessage(input)) return NotInMessage();
  return situation.text.CheckRoom(TokensAhead(input, situation),
                                  situation.waiting.tokens());
}

absl::Status CheckPlace(const PreparedInput& input,
                        const InputSituation& situation) {
  const auto& only = input.only_in_turn_started_by;
  const bool guarded =
      only && !std::holds_alternative<AfterTurn>(input.placement);
  if (guarded && situation.turn_of != *only) return TurnOver(*only);
  const ChatTail& tail = situation.text.tail();
  if (!input.parts.front().is_message && !tail.in_message()) {
    return NotInMessage();
  }
  return situation.text.CheckRoom(CountTokens(input, tail), 0);
}

int64_t TokensAhead(const PreparedInput& input,
                    const InputSituation& situation) {
  ChatTail tail = situation.text.tail();
  if (situation.writing() || !situation.waiting.empty()) tail.OnMessage();
  return CountTokens(input, tail);
}

}  // namespace millrace::session
