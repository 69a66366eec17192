// Engine runs the model: one thread, one loop, all sequences in one batch.
//
//   engine.Post([&] {                       // from any thread
//     auto sequence = engine.Open({.policy = policy}, &client);
//     (*sequence)->Append(ids);             // read as soon as there is room
//     (*sequence)->WantLogits(Logits::kLast);
//   });
//   // client.OnRows(...) is called on the engine thread after every step
//
// The loop: run posted tasks; ask the scheduler for the next step; reserve
// slots, compute, commit; hand logits to the clients, which pick tokens and
// append them. Everything but Post, Start, Stop and stats is called on the
// engine thread alone, from posted tasks and client calls.
#ifndef MILLRACE_SERVICES_ENGINE_ENGINE_H_
#define MILLRACE_SERVICES_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "backends/model.h"
#include "cache/cache_manager.h"
#include "cache/kv_storage.h"

namespace millrace::engine {

// Which of a sequence's rows a client wants logits of.
enum class Logits {
  kNone,
  kLast,  // of the last pending token: the client decodes
  kAll,   // of every token: the client scores
};

// Whoever owns a sequence. Called on the engine thread, between steps; may call
// any method of the sequence, and close it.
class SequenceClient {
 public:
  virtual ~SequenceClient() = default;

  // `count` pending tokens, from text position `first`, are computed. `logits`
  // is [rows][vocabulary_size]: the last row's with kLast if nothing is pending
  // any more, every row's with kAll, else empty. Borrowed for the call.
  virtual void OnRows(int64_t first, int64_t count,
                      absl::Span<const float> logits) = 0;

  // The step failed, or the policy refused the tokens (FAILED_PRECONDITION).
  // Pending tokens are dropped; what was computed before stands, unless the
  // status is INTERNAL.
  virtual void OnError(const absl::Status& status) = 0;
};

// The engine's side of a sequence. Destroying it closes it: blocks and
// reservation go back at once, and no later step includes it.
class Sequence {
 public:
  virtual ~Sequence() = default;

  // Queues tokens to be read. Ids are below the vocabulary size.
  virtual void Append(absl::Span<const int32_t> ids) = 0;
  virtual void WantLogits(Logits which) = 0;
  // A paused sequence is left out of steps.
  virtual void SetPaused(bool paused) = 0;

  virtual int64_t computed_tokens() const = 0;
  virtual int64_t pending_tokens() const = 0;
  // The text so far: computed + pending.
  int64_t length() const { return computed_tokens() + pending_tokens(); }

  // Cuts the text back to `length` tokens, pending ones first. OUT_OF_RANGE if
  // the cache cannot go back so far; EarliestCut tells how far it can.
  virtual absl::Status Truncate(int64_t length) = 0;
  virtual int64_t EarliestCut() const = 0;
  // Forgets everything; the reservation stays.
  virtual void Clear() = 0;

  virtual int64_t resident_tokens() const = 0;
  virtual int64_t peak_resident_tokens() const = 0;
  virtual int64_t reserved_bytes() const = 0;
};

struct EngineOptions {
  // ---- Behaviour ----
  // Sequences that decode in one step; more take turns.
  int max_decode_rows = 64;

  // ---- Performance ----
  // Tokens of one prefill chunk. More ends a long prefill sooner and delays the
  // next decode step of every other sequence.
  int prefill_chunk_tokens = 64;
};

// One step, for metrics and tests.
struct StepTrace {
  uint64_t step = 0;
  int decode_rows = 0;
  int prefill_rows = 0;
  absl::Duration duration;
  std::vector<std::pair<int64_t, int>> rows;  // sequence id, tokens
};

struct EngineStats {
  uint64_t steps = 0;
  int64_t sequences = 0;
  int64_t decoding = 0;    // want logits
  int64_t waiting = 0;     // have pending tokens and were left out
  absl::Time last_progress;  // end of the last step, or of the last idle wait
  cache::CacheManager::Stats cache;
};

class Engine {
 public:
  // Owns model and storage. REQUIRES: model->max_rows() >= max_decode_rows +
  // prefill_chunk_tokens.
  Engine(std::unique_ptr<backends::Model> model,
         std::unique_ptr<cache::KvStorage> storage,
         const EngineOptions& options);
  // Stops. All sequences are closed before.
  ~Engine();

  void Start();
  // Finishes the running step and joins the thread. Idempotent.
  void Stop();

  // Runs `task` on the engine thread between two steps, in order of posting.
  // Any thread. After Stop tasks are dropped.
  void Post(std::function<void()> task);

  // Opens a sequence and reserves its memory: RESOURCE_EXHAUSTED if there is
  // not enough. `client` is borrowed and outlives the sequence.
  absl::StatusOr<std::unique_ptr<Sequence>> Open(
      const cache::SequenceOptions& options, SequenceClient* client);

  // Called on the engine thread after every step.
  void SetStepObserver(std::function<void(const StepTrace&)> observer);

  const backends::ModelConfig& model_config() const;
  const EngineOptions& options() const;
  // Any thread; a snapshot not older than the last step.
  EngineStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_ENGINE_H_
