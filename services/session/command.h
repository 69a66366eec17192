// What the inbox hands to a session: a client's message, numbered, checked and
// tokenised.
#ifndef MILLRACE_SERVICES_SESSION_COMMAND_H_
#define MILLRACE_SERVICES_SESSION_COMMAND_H_

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "services/session/client_message.h"

namespace millrace::session {

// A chat message, its end-of-turn token included and nothing before it; or
// tokens as they stand.
struct InputPart {
  bool is_message = false;
  std::vector<int32_t> ids;
};

struct PreparedInput {
  std::vector<InputPart> parts;
  Placement placement;
  std::optional<uint64_t> only_in_turn_started_by;
  // The text goes on with that of the append before; with that of the next.
  bool continues = false, more_follows = false;
  std::optional<StartTurn> then_generate;
  int64_t bytes = 0;  // of credit
};

// A number that was used before: its answer is given again.
struct Repeated {};
// A number too high: uses no number up.
struct OutOfOrder {
  absl::Status status;
};

struct Command {
  uint64_t client_seq = 0;  // 0 with HalfClose
  std::variant<PreparedInput, StartTurn, Interrupt, UpdateOptions, ResetSession,
               CloseSession, HalfClose, Refused, Repeated, OutOfOrder>
      body = {};
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_COMMAND_H_
