// What a client can say to a session: native forms of ConnectRequest's arms.
// services/rpc converts and checks ranges; nothing here needs checking against
// a range again.
#ifndef MILLRACE_SERVICES_SESSION_CLIENT_MESSAGE_H_
#define MILLRACE_SERVICES_SESSION_CLIENT_MESSAGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cache/policies/registry.h"
#include "services/engine/generation_options.h"
#include "services/text/chat_format.h"

namespace millrace::session {

enum class Format { kChat, kPlain };

struct OpenOptions {
  std::optional<Format> format;  // unset: chat where the model has a template
  std::optional<std::string> system_prompt;
  std::string client_tag;
  std::optional<cache::PolicyConfig> policy;  // unset: the server's default
  engine::GenerationOptions generation;       // effective
  absl::Duration idle_timeout;
  absl::Duration detach_timeout;
  int64_t rollback_tokens = 256;
};

struct TextInput {
  std::string text;  // valid UTF-8
  bool parse_special_tokens = false;
};
struct MessageInput {
  text::Role role;
  std::string content;  // valid UTF-8
};
using Input = std::variant<TextInput, std::vector<int32_t>, MessageInput>;

// Where an input goes while a turn runs.
struct NextStep {};
struct AfterTurn {};
struct AtTextPosition {
  uint64_t position = 0;
};
using Placement = std::variant<NextStep, AfterTurn, AtTextPosition>;

// Unset options: those of the session.
struct StartTurn {
  std::optional<engine::SamplingOptions> sampling;
  std::optional<engine::StoppingOptions> stopping;
  std::optional<engine::ResponseOptions> response;
  bool new_message = false;
};

struct AppendInput {
  std::vector<Input> inputs;
  std::optional<Placement> placement;
  std::optional<uint64_t> only_in_turn_started_by;
  bool more_follows = false;
  std::optional<StartTurn> then_generate;
};

struct Interrupt {
  std::optional<uint64_t> started_by;
  std::optional<uint64_t> keep_until_text_position = std::nullopt;
  bool drop_pending_input = false;
};

struct UpdateOptions {
  std::optional<engine::SamplingOptions> sampling;
  std::optional<engine::StoppingOptions> stopping;
  std::optional<engine::ResponseOptions> response;
};

struct ResetSession {};
struct CloseSession {};
// Not a message of its own: the client closed its half of the stream.
struct HalfClose {};
// An arm that this server does not know, or a message that conversion refused.
struct Refused {
  absl::Status status;  // becomes the answer `rejected`
  // If it was an append: a text in pieces breaks off with it.
  bool append = false;
  bool more_follows = false;
};

struct ClientMessage {
  std::optional<uint64_t> client_seq;  // unset: previous + 1
  std::variant<AppendInput, StartTurn, Interrupt, UpdateOptions, ResetSession,
               CloseSession, HalfClose, Refused>
      body;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_CLIENT_MESSAGE_H_
