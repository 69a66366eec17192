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
// append them. With a model that has a StepQueue the next step is begun in
// between. Everything but Post, Start, Stop and stats is called on the
// engine thread alone, from posted tasks and client calls; after Stop, which
// ends that thread, sequences can be closed from any one thread.
#ifndef MILLRACE_SERVICES_ENGINE_ENGINE_H_
#define MILLRACE_SERVICES_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "backends/model.h"
#include "backends/phase.h"
#include "backends/row_sampling.h"
#include "cache/cache_manager.h"
#include "cache/kv_storage.h"
#include "services/engine/generation_options.h"

namespace millrace::engine {

// Which of a sequence's rows a client wants logits of.
enum class Logits {
  kNone,
  kLast,  // of the last pending token: the client decodes
  kAll,   // of every token: the client scores
};

// Tokens that were guessed, and those of them that clients then picked.
struct SpeculationCounts {
  uint64_t drafted = 0, accepted = 0;
};

// Whoever owns a sequence. Called on the engine thread, after a step; may call
// any method of the sequence, and close it. Where the model has a StepQueue the
// next step may be running by then: rows of it that what the client does makes
// void are dropped.
class SequenceClient {
 public:
  virtual ~SequenceClient() = default;

  // `count` pending tokens, from text position `first`, are computed. `logits`
  // is [rows][vocabulary_size]: the last row's with kLast if nothing is pending
  // any more, every row's with kAll, else empty. Borrowed for the call. A token
  // that WantLogits made pending once more is reported once more;
  // one that was cut off before the call is not.
  virtual void OnRows(int64_t first, int64_t count,
                      absl::Span<const float> logits) = 0;

  // How the model picks the next token, if it can and the client wants no more
  // of the row than that. Asked before a step that computes the last pending
  // token of a sequence with kLast; nullopt: OnRows is called with its logits.
  // `unknown_tokens`: 1 if the token before it is still being picked, so that
  // the client does not know it yet; nullopt: ask again when it does. The
  // answer holds if the client then appends that token and still wants kLast.
  virtual std::optional<backends::RowSampling> HowToPick(int unknown_tokens) {
    return std::nullopt;
  }
  // In place of OnRows, after HowToPick has said how: the id that was picked;
  // -1 if a logit is NaN or infinite.
  virtual void OnPicked(int64_t first, int64_t count, int32_t id) {}

  // The step failed (the model's status, INTERNAL), or the policy refused the
  // tokens (FAILED_PRECONDITION). Pending tokens are dropped; what was computed
  // before stands, but after INTERNAL only Clear and closing make sense: tokens
  // of a step that has failed may count as computed.
  virtual void OnError(const absl::Status& status) = 0;
};

// The engine's side of a sequence. Destroying it closes it: blocks and
// reservation go back at once, and no later step includes it.
class Sequence {
 public:
  virtual ~Sequence() = default;

  // As StepTrace names it.
  virtual int64_t id() const = 0;
  // What the sequence was opened with: what is visible or evicted follows from
  // it and length() alone (cache::VisibilityLedger), unless it chooses by
  // attention.
  virtual const std::shared_ptr<const cache::CachePolicy>& policy() const = 0;

  // Queues tokens to be read, in the order in which they are appended. Ids are
  // below the vocabulary size.
  virtual void Append(absl::Span<const int32_t> ids) = 0;
  // Holds until the next call. kLast while nothing is pending computes the last
  // token of the text once more, if there is one: a turn can go on after a cut,
  // or after its last logits went unused.
  virtual void WantLogits(Logits which) = 0;
  // Holds until the next call. Guessed tokens are computed along with one that
  // the client has picked, while no other sequence shares the step; logits of
  // theirs are handed over only once the client has picked them, too. So it
  // sees the same calls, faster. Policies that choose by attention or recompute
  // never speculate.
  virtual void SetSpeculation(Speculation which) = 0;
  virtual SpeculationCounts speculation_counts() const = 0;
  // A paused sequence is left out of steps.
  virtual void SetPaused(bool paused) = 0;

  virtual int64_t computed_tokens() const = 0;
  virtual int64_t pending_tokens() const = 0;
  // The text so far: computed + pending.
  int64_t length() const { return computed_tokens() + pending_tokens(); }

  // Cuts the text back to `length` tokens, pending ones first. OUT_OF_RANGE,
  // and no change, if the cache cannot go back so far; EarliestCut tells how
  // far it can: at least `rollback_tokens` below length(), or to 0, or to where
  // a policy that chooses by attention has last made its choice.
  virtual absl::Status Truncate(int64_t length) = 0;
  virtual int64_t EarliestCut() const = 0;
  // Forgets everything; the reservation stays.
  virtual void Clear() = 0;

  // Those that are computed as things stand: a policy may want to know the end
  // of the input, that is kLast, before the last of them.
  virtual int64_t readable_tokens() const { return pending_tokens(); }
  // How many more can be written, one by one, before the policy is full.
  virtual int64_t room_to_write() const { return cache::kUnlimited; }

  // What the cache holds of the text and what is to come, by text position:
  // ascending, merged, the last range without end.
  virtual std::vector<cache::TextRange> Held() const = 0;
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
  int draft_rows = 0;  // guessed tokens
  // Begun before it was known that nobody wants them.
  int dropped_rows = 0;
  // Rows of the step before that became tokens: these were guessed right.
  int accepted_before = 0;
  // Of reserving and computing; if it was begun behind another, since that one
  // ended.
  absl::Duration duration;
  std::vector<std::pair<int64_t, int>> rows;  // sequence id, tokens not guessed
};

struct EngineStats {
  uint64_t steps = 0;
  int64_t sequences = 0;
  int64_t decoding = 0;  // want logits
  int64_t waiting = 0;   // have pending tokens and were left out
  // Since the end of the last step or of the last wait for work, by a clock
  // that nobody sets; 0 while there is nothing to do. For a watchdog.
  absl::Duration progress_age;
  // Of the last step: OK, or what the model said. A device that failed once
  // fails, as a rule, for good.
  absl::Status last_step;
  cache::CacheManager::Stats cache;
  backends::PhaseTimes phase_times;  // of all steps
  SpeculationCounts speculation;     // of all sequences since the start
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

  // Starts the thread. Once.
  void Start();
  // Finishes the running step and joins the thread; nobody hears of one that is
  // begun behind it. Idempotent. Not from the engine thread.
  void Stop();

  // Runs `task` on the engine thread between two steps, in order of posting.
  // Any thread. Tasks posted before Start wait for it; after Stop they are
  // dropped. The queue has no limit of its own: whoever posts keeps to one.
  void Post(std::function<void()> task);

  // Opens a sequence and reserves its memory: RESOURCE_EXHAUSTED if there is
  // not enough. `max_chunk_tokens` of the options is the engine's own, whatever
  // it says. extra_rollback_tokens() are held beyond `rollback_tokens`.
  // `client` is borrowed and outlives the sequence.
  absl::StatusOr<std::unique_ptr<Sequence>> Open(
      const cache::SequenceOptions& options, SequenceClient* client);

  // Called on the engine thread after every step, before its clients are. Set
  // it before Start.
  void SetStepObserver(std::function<void(const StepTrace&)> observer);

  // One, so that the last token before any cut can be computed once more; and
  // one for a row that is begun early, and pushes a token out although nobody
  // may want it.
  int64_t extra_rollback_tokens() const;

  const backends::ModelConfig& model_config() const;
  const cache::KvSpec& kv_spec() const;
  const EngineOptions& options() const;
  // Any thread; a snapshot not older than the last step.
  EngineStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_ENGINE_H_
