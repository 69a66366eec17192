// A step of the engine: whose rows it computes, from its plan until its rows
// are handed over.
#ifndef MILLRACE_SERVICES_ENGINE_STEP_H_
#define MILLRACE_SERVICES_ENGINE_STEP_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "backends/batch.h"
#include "backends/row_sampling.h"
#include "cache/kv_view.h"

namespace millrace::engine {

// One sequence's part of a step.
struct StepPart {
  int64_t id = 0;
  int64_t first = 0;  // text position of the first of its tokens
  int tokens = 0;     // not guessed
  int anew = 0;       // the first of them, which its client knows as computed
  int logits_rows = 0;
  bool decodes = false;
  // Of all its rows: `tokens`, and those that are guessed behind them.
  std::vector<int32_t> ids = {};
  // backends::Chunk::picked_before; ids[0] is filled in once it is known.
  int picked_before = -1;
  // Where the model picks the next token: how, and which.
  std::optional<backends::RowSampling> sampling = {};
  int32_t picked = -1;
  cache::KvView view = {};
  // Nobody wants it any more: it was begun before that was known.
  bool dropped = false;

  int guessed() const { return static_cast<int>(ids.size()) - tokens; }
  int rows_of_logits() const { return sampling ? 0 : logits_rows; }
};

struct Step {
  struct Refusal {
    int64_t id = 0;
    absl::Status status;
  };

  uint64_t number = 0;  // 1, 2, ...
  std::vector<StepPart> parts;
  std::vector<Refusal> refused;  // by their policies
  int64_t left_out = 0;          // sequences that had pending tokens
  // Borrows from `parts`, which stay where they are from MakeBatch on.
  backends::Batch batch;
  absl::Status status;  // the model's
  std::chrono::steady_clock::time_point begun;

  void MakeBatch();
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_STEP_H_
