// What is asked of an input: when it comes, and once more when it gets its
// place, as what was right may have changed until then.
//
// Pure functions. The errors are those of refusals.h.
#ifndef MILLRACE_SERVICES_SESSION_INPUT_CHECKS_H_
#define MILLRACE_SERVICES_SESSION_INPUT_CHECKS_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "services/session/command.h"
#include "services/session/session_text.h"
#include "services/session/waiting_items.h"

namespace millrace::session {

// What an input comes upon.
struct InputSituation {
  const SessionText& text;
  const WaitingItems& waiting;
  // Who started the turn that has its place, if one has.
  std::optional<uint64_t> turn_of = std::nullopt;
  bool text_rejected = false;  // an earlier piece of the text was
  bool draining = false;       // the server is: no new turns

  // Whether a turn runs, or will without being asked for once more.
  bool writing() const { return turn_of || waiting.turns() > 0; }
};

// When it comes. PREVIOUS_REJECTED, DRAINING, TURN_OVER, INVALID_FIELD,
// NOT_IN_MESSAGE or CACHE_FULL.
absl::Status CheckAppend(const PreparedInput& input,
                         const InputSituation& situation);

// When it gets its place. TURN_OVER, NOT_IN_MESSAGE or CACHE_FULL.
absl::Status CheckPlace(const PreparedInput& input,
                        const InputSituation& situation);

// Its tokens, as it would be written after everything that waits.
int64_t TokensAhead(const PreparedInput& input,
                    const InputSituation& situation);

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_INPUT_CHECKS_H_
