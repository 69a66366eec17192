// What a request or a turn may ask of generation: native forms of the messages
// SamplingParams, StoppingOptions and ResponseOptions of proto/millrace/v1.
//
// All values are effective ones: services/rpc fills defaults and checks ranges,
// nothing here is checked again.
#ifndef MILLRACE_SERVICES_ENGINE_GENERATION_OPTIONS_H_
#define MILLRACE_SERVICES_ENGINE_GENERATION_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace millrace::engine {

// How tokens are guessed that are then verified many at once. What is written
// is the same.
enum class Speculation {
  kNone,
  kNgram,  // as the text went on where its last tokens stood before
};

struct SamplingOptions {
  float temperature = 0.7f;         // 0: greedy
  int top_k = 0;                    // 0: off
  float top_p = 0.95f;              // 1: off
  float min_p = 0.05f;              // 0: off
  float repetition_penalty = 1.0f;  // 1: off
  float presence_penalty = 0.0f;    // 0: off
  float frequency_penalty = 0.0f;   // 0: off
  int penalty_window_tokens = 256;  // last ones, evicted or not; 0: none
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // distinct ids
  Speculation speculation = Speculation::kNone;
};

struct StoppingOptions {
  std::optional<uint64_t> max_tokens = 1024;  // nullopt: unlimited
  uint64_t min_tokens = 0;  // end-of-turn ids get no probability before
  std::vector<std::string> stop_strings;  // none empty
  std::vector<int32_t> stop_token_ids;
  bool ignore_end_of_turn = false;
  absl::Duration time_limit = absl::InfiniteDuration();
  int repetition_guard = 512;  // 0: off
};

struct ResponseOptions {
  // Log-probabilities of each token and of the n most likely ones beside it; 0:
  // of the token alone; -1: none.
  int logprobs = -1;
  bool text = true;
  bool token_ids = true;
  int cache_update_interval_tokens = 256;  // at least 1
};

struct GenerationOptions {
  SamplingOptions sampling;
  StoppingOptions stopping;
  ResponseOptions response;
};

enum class FinishReason {
  kEndOfTurn,
  kStop,
  kMaxTokens,
  kTimeLimit,
  kRepetition,
  kCapacity,
  kInterrupted,
  kInput,
  kDrained,
  kError,
};

// What ended a turn with kStop.
struct StopMatch {
  std::string text;          // the stop string, or empty
  int32_t token_id = -1;     // the stop token, or -1
  std::string trimmed_text;  // generated, but left out of the text
};

struct TokenLogprobs {
  float logprob = 0;  // natural log, of the chosen token, from raw logits
  std::vector<std::pair<int32_t, float>> top;  // most likely first
  int32_t token_id = -1;                       // the chosen token
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_GENERATION_OPTIONS_H_
