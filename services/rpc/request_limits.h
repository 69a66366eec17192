// What requests are held to: the model's sizes and the server's flags.
#ifndef MILLRACE_SERVICES_RPC_REQUEST_LIMITS_H_
#define MILLRACE_SERVICES_RPC_REQUEST_LIMITS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/engine/generation_options.h"
#include "services/text/tokenizer.h"

namespace millrace::rpc {

struct RequestLimits {
  // ---- The model ----
  std::string model_name;
  const text::Tokenizer* tokenizer = nullptr;  // borrowed

  // ---- Turns ----
  uint64_t default_turn_tokens = 1024;      // where the client names none
  std::optional<uint64_t> max_turn_tokens;  // nullopt: no cap
  absl::Duration max_turn_duration = absl::InfiniteDuration();  // no cap
  int max_stop_strings = 16;
  int max_stop_bytes = 256;  // of each
  int max_logit_bias = 1024;
  int max_top_logprobs = 20;
  // Where the client names none.
  engine::Speculation speculation = engine::Speculation::kNone;

  // ---- Sessions ----
  absl::Duration session_idle_timeout = absl::Minutes(30);
  absl::Duration detach_timeout = absl::Seconds(60);
  int64_t max_pending_input_bytes = 1 << 20;
  std::vector<std::string> features;

  // Whether clients may send special tokens. With them a text can impersonate
  // any role.
  bool allow_special_tokens = false;
};

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_REQUEST_LIMITS_H_
