// Decides what one step computes. Pure: facts in, plan out.
//
// Every sequence that is ready to decode gets its one row. What waits to be
// read shares one prefill chunk a step, first come first served, so a long
// prompt never delays another sequence's tokens by more than one chunk.
#ifndef MILLRACE_SERVICES_ENGINE_SCHEDULER_H_
#define MILLRACE_SERVICES_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace millrace::engine {

// One sequence, as the scheduler sees it.
struct SequenceFacts {
  int64_t id = 0;
  int64_t pending_tokens = 0;  // appended and not yet computed
  bool wants_logits = false;   // of the last pending token: it decodes
  bool paused = false;         // its reader is slow: leave it out
  uint64_t waiting_since = 0;  // step at which pending_tokens became non-zero
};

struct PlannedRows {
  int64_t id = 0;
  int tokens = 0;
  friend bool operator==(const PlannedRows&, const PlannedRows&) = default;
};

struct SchedulerLimits {
  int max_decode_rows = 64;     // more sequences than that take turns
  int prefill_chunk_tokens = 64;
};

// The rows of the next step: decode rows first. Empty if nothing can run.
// `step` rotates who decodes when there are more than max_decode_rows.
std::vector<PlannedRows> PlanStep(absl::Span<const SequenceFacts> sequences,
                                  const SchedulerLimits& limits,
                                  uint64_t step);

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_SCHEDULER_H_
