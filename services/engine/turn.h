// One turn of generation: from logits to tokens, text, and a reason to stop.
//
//   RecentTokens recent(512);
//   Turn turn(options, {.turn = 3, .tokenizer = &tokenizer, .recent =
//   &recent}); TurnStep step = turn.Next({.logits = logits}, now);
//   // step.token_id is written; step.text may lag it (incomplete character,
//   // possible stop string); step.finished tells why the turn ends, if it does
//
// Pure: no thread, no clock, no cache. Random numbers are counter-based, keyed
// by (seed, turn, token index): the same seed gives the same tokens whatever
// else runs. Not thread-safe.
#ifndef MILLRACE_SERVICES_ENGINE_TURN_H_
#define MILLRACE_SERVICES_ENGINE_TURN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "backends/row_sampling.h"
#include "services/engine/generation_options.h"
#include "services/engine/sampling/recent_tokens.h"
#include "services/text/tokenizer.h"

namespace millrace::engine {

struct TurnStep {
  int32_t token_id = -1;
  std::string text;  // valid UTF-8 that can be shown now; often lags
  std::optional<TokenLogprobs> logprobs;
  std::optional<FinishReason> finished;
  std::optional<StopMatch> stop_match;  // with kStop
};

// What a step gave for the next token: its logits, or the token itself, which
// the backend picked as Turn::HowToPick said; -1: its logits are not finite.
struct NextToken {
  absl::Span<const float> logits = {};  // [vocabulary_size]
  std::optional<int32_t> picked = std::nullopt;

  bool empty() const { return logits.empty() && !picked; }
};

class Turn {
 public:
  struct Context {
    uint64_t turn = 1;  // keys the random numbers
    const text::Tokenizer* tokenizer = nullptr;
    // The last tokens of the text, for penalties and the repetition guard;
    // belongs to the session, since they reach back beyond the turn. The turn
    // adds the tokens that it picks, the session all others. Both borrowed.
    RecentTokens* recent = nullptr;
    absl::Time started;  // of the time limit
  };

  Turn(const GenerationOptions& options, const Context& context);
  ~Turn();

  // Takes the next token, or picks it from raw logits. The step that finishes
  // carries all the text that was held back, except what a stop left out. NaN
  // or infinite logits finish with kError and token_id -1.
  // REQUIRES: not finished, not empty.
  TurnStep Next(const NextToken& next, absl::Time now);

  // How a backend picks the next token in its place, or the one after so many
  // (0 or 1) that are not known yet; nullopt if only Next can:
  // log-probabilities are asked for, or too many logits are adjusted.
  // REQUIRES: not finished.
  std::optional<backends::RowSampling> HowToPick(int unknown_tokens) const;

  // Input was placed in the midst of the turn: held-back text is returned to be
  // shown, stop matching starts anew.
  std::string OnInput();

  // Ends the turn from outside; returns the text that was still held back.
  std::string Flush();

  // Whether the tokens so far end with a whole character: where input can be
  // placed without breaking one.
  bool AtCharacterBoundary() const;

  uint64_t generated_tokens() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_TURN_H_
