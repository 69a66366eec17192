#include "services/engine/step.h"

namespace millrace::engine {

void Step::MakeBatch() {
  for (StepPart& part : parts) {
    batch.chunks.push_back({.token_ids = part.ids,
                            .first_position = part.first,
                            .view = &part.view,
                            .num_logits = part.logits_rows,
                            .picked_before = part.picked_before});
    if (!part.sampling) continue;
    batch.chunks.back().sampling = {&*part.sampling, 1};
    batch.chunks.back().picked = {&part.picked, 1};
  }
}

}  // namespace millrace::engine
