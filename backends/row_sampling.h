// How a token is picked from a row of logits by a backend that can (StepQueue
// in model.h). The host's own sampler, services/engine/sampling, defines what
// is picked; both use the arithmetic of this file.
#ifndef MILLRACE_BACKENDS_ROW_SAMPLING_H_
#define MILLRACE_BACKENDS_ROW_SAMPLING_H_

#include <cstdint>
#include <limits>
#include <vector>

namespace millrace::backends {

// What changes the logit of one token before one is picked. Defaults change
// nothing.
struct LogitAdjustment {
  int32_t id = 0;
  float bias = 0;
  float repetition_penalty = 1;
  float frequency_penalty = 0;    // times how often the token is there
  float frequency_once_more = 0;  // the same if it were there once more
  float presence_penalty = 0;
  bool suppressed = false;  // no probability at all
};

constexpr float FiniteLogit(float logit) {
  constexpr float kMost = std::numeric_limits<float>::max();
  return logit > kMost ? kMost : logit < -kMost ? -kMost : logit;
}

// Finite, unless suppressed. REQUIRES: `logit` is finite.
constexpr float AdjustedLogit(float logit, const LogitAdjustment& by) {
  if (by.suppressed) return -std::numeric_limits<float>::infinity();
  logit = FiniteLogit(logit + by.bias);
  logit = FiniteLogit(logit > 0 ? logit / by.repetition_penalty
                                : logit * by.repetition_penalty);
  return FiniteLogit(logit - by.frequency_penalty - by.presence_penalty);
}

// What a request asks of every token that is there.
struct Penalties {
  float repetition = 1;
  float frequency = 0;  // each time
  float presence = 0;
};

// The adjustment of a token that is not there yet, and has no other.
constexpr LogitAdjustment NotThere(int32_t id, const Penalties& penalties) {
  LogitAdjustment none;
  none.id = id;
  none.frequency_once_more = penalties.frequency;
  return none;
}

// The adjustment of a token of which one more has come.
constexpr LogitAdjustment OnceMore(LogitAdjustment known,
                                   const Penalties& penalties) {
  known.repetition_penalty = penalties.repetition;
  known.frequency_penalty = known.frequency_once_more;
  known.presence_penalty = penalties.presence;
  return known;
}

struct RowSampling {
  // The most adjustments that a backend takes.
  static constexpr int kMaxAdjustments = 512;

  float temperature = 0;  // 0: the largest logit; the lowest id of equal ones
  int top_k = 0;          // 0: off
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  double uniform = 0;     // the random number, 0 <= u < 1
  std::vector<LogitAdjustment> adjustments = {};  // distinct ids
  // Of the token before this one, if it is still being picked
  // (Chunk::picked_before) and so is in no adjustment as often as it is there.
  Penalties of_unknown = {};
};

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_ROW_SAMPLING_H_
