#include "services/engine/scheduler.h"

#include <algorithm>
#include <tuple>

namespace millrace::engine {
namespace {

// Who has waited longest, then the lower id.
bool GoesBefore(const SequenceFacts* a, const SequenceFacts* b) {
  return std::tie(a->waiting_since, a->id) < std::tie(b->waiting_since, b->id);
}

}  // namespace

std::vector<PlannedRows> PlanStep(absl::Span<const SequenceFacts> sequences,
                                  const SchedulerLimits& limits) {
  std::vector<const SequenceFacts*> decoding, reading;
  for (const SequenceFacts& facts : sequences) {
    if (facts.paused || facts.pending_tokens == 0) continue;
    (Decodes(facts) ? decoding : reading).push_back(&facts);
  }
  std::sort(decoding.begin(), decoding.end(), GoesBefore);
  std::sort(reading.begin(), reading.end(), GoesBefore);
  const size_t most = static_cast<size_t>(limits.max_decode_rows);
  if (decoding.size() > most) decoding.resize(most);

  std::vector<PlannedRows> plan;
  for (const SequenceFacts* facts : decoding) plan.push_back({facts->id, 1});
  int64_t chunk = limits.prefill_chunk_tokens;
  for (const SequenceFacts* facts : reading) {
    if (chunk == 0) break;
    const int64_t tokens =
        std::min({facts->pending_tokens, facts->max_chunk, chunk});
    plan.push_back({facts->id, static_cast<int>(tokens)});
    chunk -= tokens;
  }
  return plan;
}

}  // namespace millrace::engine
