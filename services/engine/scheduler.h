// Decides what one step computes. Pure: facts in, plan out.
//
// Every sequence that is ready to decode gets its one row. What waits to be
// read shares one prefill chunk a step, so a long prompt never delays another
// sequence's tokens by more than one chunk.
//
// Nobody starves: who has waited longest goes first, and whoever was served
// waits anew. So a short prompt is read between two chunks of a long one, and
// two long ones take turns.
#ifndef MILLRACE_SERVICES_ENGINE_SCHEDULER_H_
#define MILLRACE_SERVICES_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"

namespace millrace::engine {

// One sequence, as the scheduler sees it.
struct SequenceFacts {
  int64_t id = 0;
  int64_t pending_tokens = 0;  // appended and not yet computed
  // Of the last pending token: with one pending token it decodes.
  bool wants_logits = false;
  // Its next chunk may not be longer; at least 1.
  int64_t max_chunk = std::numeric_limits<int64_t>::max();
  bool paused = false;  // its reader is slow: leave it out
  // Steps that had run when the first of the pending tokens was appended, or
  // when the last step of the sequence was over if that was later.
  uint64_t waiting_since = 0;
};

// Whether its next step is a decode step, not a part of a prefill chunk.
inline bool Decodes(const SequenceFacts& facts) {
  return facts.wants_logits && facts.pending_tokens == 1;
}

struct PlannedRows {
  int64_t id = 0;
  int tokens = 0;
  friend bool operator==(const PlannedRows&, const PlannedRows&) = default;
};

struct SchedulerLimits {
  int max_decode_rows = 64;  // more sequences than that take turns
  int prefill_chunk_tokens = 64;
};

// The rows of the next step: decode rows first; within each kind, who has
// waited longest, then the lower id. Empty if nothing can run.
std::vector<PlannedRows> PlanStep(absl::Span<const SequenceFacts> sequences,
                                  const SchedulerLimits& limits);

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SCHEDULER_H_
