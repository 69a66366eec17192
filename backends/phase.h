// The phases of a step, one for each operation of ops.h, and how long they
// take.
#ifndef MILLRACE_BACKENDS_PHASE_H_
#define MILLRACE_BACKENDS_PHASE_H_

#include <array>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace millrace::backends {

enum class Phase {
  kBegin,
  kEmbed,
  kAttentionInput,
  kAttention,
  kAttentionOutput,
  kFeedForwardIn,
  kFeedForwardOut,
  kLogits,
};

inline constexpr int kNumPhases = 8;

// By phase; all layers together.
using PhaseTimes = std::array<absl::Duration, kNumPhases>;

// As metrics have them: "attention_input".
inline absl::string_view PhaseName(int phase) {
  static constexpr absl::string_view kNames[kNumPhases] = {"begin",
                                                           "embed",
                                                           "attention_input",
                                                           "attention",
                                                           "attention_output",
                                                           "feed_forward_in",
                                                           "feed_forward_out",
                                                           "logits"};
  return kNames[phase];
}

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_PHASE_H_
