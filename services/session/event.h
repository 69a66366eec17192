// What a session tells its client: native forms of ConnectResponse's arms.
#ifndef MILLRACE_SERVICES_SESSION_EVENT_H_
#define MILLRACE_SERVICES_SESSION_EVENT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cache/text_range.h"
#include "services/engine/generation_options.h"
#include "services/session/client_message.h"

namespace millrace::session {

enum class State {
  kIdle,
  kReading,
  kWriting,
  kPaused,
  kDetached,
  kClosed,
};

struct Usage {
  uint64_t input_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t evicted_tokens = 0;
  uint64_t text_position = 0;  // tokens of the text so far
  uint64_t visible_tokens = 0;
  uint64_t peak_resident_tokens = 0;
  absl::Duration queued, time_to_first_token, decode;
  uint64_t drafted_tokens = 0, accepted_tokens = 0;  // by speculation
};

struct EffectiveOptions {
  Format format = Format::kPlain;
  std::string policy;  // canonical text form
  engine::GenerationOptions generation;
  absl::Duration idle_timeout, detach_timeout;
  int64_t rollback_tokens = 0;
};

struct Opened {
  std::string session_id;         // public
  std::string resume_token = {};  // the secret
  EffectiveOptions options = {};
  std::vector<int32_t> system_token_ids = {};
  uint64_t reserved_bytes = 0;
  uint64_t max_pending_input_bytes = 0;
};
struct Resumed {
  bool gap = false;  // events between are lost
  uint64_t text_position = 0;
  State state = State::kIdle;
  uint64_t turn = 0;  // that is running; 0: none
};
struct InputQueued {
  uint64_t client_seq = 0, tokens = 0;
};
struct InputAccepted {
  uint64_t client_seq = 0, text_position = 0, tokens = 0;
  uint64_t turn = 0;  // 0: outside a turn
};
struct InputProgress {
  uint64_t client_seq = 0, tokens_read = 0, tokens_total = 0,
           forgotten_tokens = 0;
};
struct TurnStarted {
  uint64_t turn = 0, started_by = 0, text_position = 0;
  std::vector<int32_t> prefix_token_ids = {};
  bool continued = false;
};
struct Output {
  uint64_t turn = 0;
  uint64_t text_position = 0;  // of the first token
  std::vector<int32_t> token_ids = {};
  // How many tokens, where token_ids does not name them; else 0.
  uint64_t unnamed_tokens = 0;
  std::string text = {};
  std::vector<engine::TokenLogprobs> logprobs = {};
};
struct TurnFinished {
  uint64_t turn = 0;
  engine::FinishReason reason = engine::FinishReason::kError;
  std::optional<engine::StopMatch> stop_match = {};
  Usage usage = {};
  uint64_t kept_until = 0;
  absl::Status error = {};  // with kError
};
struct CacheUpdated {
  std::vector<cache::TextRange> evicted, restored, recomputed;
  uint64_t visible_tokens = 0, text_position = 0, total_evicted_tokens = 0;
  uint32_t sink_tokens = 0, window_tokens = 0;
};
struct OptionsUpdated {
  EffectiveOptions options;
};
struct Rejected {
  uint64_t client_seq = 0;
  absl::Status error;
};
struct GoAway {
  absl::Time deadline = {};
  std::string reason;
  bool resumable = false;
};
enum class CloseReason { kClient, kIdle, kDeleted, kDrained, kError };
struct Closed {
  CloseReason reason = CloseReason::kClient;
  absl::Status error;
  Usage usage;
};

using EventBody =
    std::variant<Opened, Resumed, InputQueued, InputAccepted, InputProgress,
                 TurnStarted, Output, TurnFinished, CacheUpdated,
                 OptionsUpdated, Rejected, GoAway, Closed>;

// The tokens that an output accounts for.
inline uint64_t NumTokens(const Output& output) {
  return output.token_ids.size() + output.unnamed_tokens;
}

struct Event {
  // 1, 2, 3, ... over the life of the session, not of the stream.
  uint64_t sequence_number = 0;
  EventBody body;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_EVENT_H_
