#include "services/engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/engine/engine_sequence.h"
#include "services/engine/ngram_draft.h"
#include "services/engine/scheduler.h"
#include "services/engine/task_queue.h"

namespace millrace::engine {
namespace {

using Clock = std::chrono::steady_clock;

// One sequence's part of a step.
struct Part {
  int64_t id = 0;
  int64_t first = 0;  // text position of the first of its tokens
  int tokens = 0;
  int anew = 0;  // the first of them, which its client knows as computed
  int logits_rows = 0;
  bool decodes = false;
  // Its only token and those that are guessed behind it; else empty.
  std::vector<int32_t> guess;
  // Where the model picks the next token: how, and which.
  std::optional<backends::RowSampling> sampling;
  int32_t picked = -1;
  cache::KvView view;

  int guessed() const {
    return std::max(0, static_cast<int>(guess.size()) - 1);
  }
  int rows_of_logits() const { return sampling ? 0 : logits_rows; }
};

struct Failure {
  int64_t id = 0;
  absl::Status status;
};

}  // namespace

struct Engine::Impl {
  Impl(std::unique_ptr<backends::Model> m, std::unique_ptr<cache::KvStorage> s,
       const EngineOptions& o)
      : options(o),
        model(std::move(m)),
        storage(std::move(s)),
        table{.cache = cache::CacheManager(
                  storage->spec(), storage->num_blocks(), storage.get()),
              .open = {},
              .steps = 0} {}

  void Run();
  // Whether there was anything to compute.
  bool Step();
  std::vector<SequenceFacts> Facts() const;
  void Prepare(const std::vector<PlannedRows>& plan);
  void PrepareGuess(EngineSequence& sequence, Part& part);
  void PreparePicks();
  absl::Status Compute();
  void Observe(absl::Duration duration);
  void Deliver();
  void DeliverTo(const Part& part, absl::Span<const float> part_logits);
  void DeliverGuess(const Part& part, absl::Span<const float> part_logits);
  void Fail(const std::vector<Failure>& failures);
  void PublishStats(bool idle);

  EngineSequence* Find(int64_t id) {
    const auto it = table.open.find(id);
    return it == table.open.end() ? nullptr : it->second;
  }
  size_t vocabulary() const {
    return static_cast<size_t>(model->config().vocabulary_size);
  }

  const EngineOptions options;
  const std::unique_ptr<backends::Model> model;
  const std::unique_ptr<cache::KvStorage> storage;
  SequenceTable table;
  std::function<void(const StepTrace&)> observer;
  TaskQueue queue;
  std::thread thread;

  // The step that is being run.
  std::vector<Part> parts;
  std::vector<Failure> refused;
  std::vector<float> logits;  // [rows][vocabulary], as long as ever needed
  int accepted = 0;           // guesses, of the last step
  int64_t left_out = 0;       // had pending tokens and are not in the step
  absl::Status status;        // the model's

  mutable absl::Mutex mutex;
  EngineStats published ABSL_GUARDED_BY(mutex);
  bool idle ABSL_GUARDED_BY(mutex) = true;
  Clock::time_point progress ABSL_GUARDED_BY(mutex) = Clock::now();
};

void Engine::Impl::Run() {
  std::vector<TaskQueue::Task> tasks;
  bool busy = false;
  while (queue.Take(/*wait=*/!busy, &tasks)) {
    if (!busy) PublishStats(/*idle=*/false);
    for (TaskQueue::Task& task : tasks) {
      std::exchange(task, nullptr)();  // what it owns goes with it
    }
    tasks.clear();
    busy = Step();
    PublishStats(/*idle=*/!busy);
  }
}

bool Engine::Impl::Step() {
  for (const auto& [id, sequence] : table.open) sequence->Prepare();
  const std::vector<SequenceFacts> facts = Facts();
  const std::vector<PlannedRows> plan =
      PlanStep(facts, {.max_decode_rows = options.max_decode_rows,
                       .prefill_chunk_tokens = options.prefill_chunk_tokens});
  left_out = -static_cast<int64_t>(plan.size());
  for (const SequenceFacts& f : facts) left_out += f.pending_tokens > 0;
  if (plan.empty()) return false;

  const Clock::time_point start = Clock::now();
  Prepare(plan);
  status = Compute();
  Observe(absl::FromChrono(Clock::now() - start));
  PublishStats(/*idle=*/false);
  if (status.ok()) {
    Deliver();
  } else {
    std::vector<Failure> failures;
    for (const Part& part : parts) failures.push_back({part.id, status});
    Fail(failures);
  }
  Fail(refused);
  return true;
}

std::vector<SequenceFacts> Engine::Impl::Facts() const {
  std::vector<SequenceFacts> facts;
  facts.reserve(table.open.size());
  for (const auto& [id, sequence] : table.open) {
    facts.push_back(sequence->Facts());
  }
  return facts;
}

void Engine::Impl::Prepare(const std::vector<PlannedRows>& plan) {
  parts.clear();
  refused.clear();
  for (const PlannedRows& rows : plan) {
    EngineSequence& sequence = *Find(rows.id);
    absl::StatusOr<cache::KvView> view = sequence.Reserve(rows.tokens);
    if (!view.ok()) {
      refused.push_back({rows.id, view.status()});
      continue;
    }
    const int anew = static_cast<int>(
        std::min<int64_t>(rows.tokens, sequence.computed_anew()));
    parts.push_back({.id = rows.id,
                     .first = sequence.cached_tokens(),
                     .tokens = rows.tokens,
                     .anew = anew,
                     .logits_rows = sequence.WantedRows(
                         rows.tokens, anew, sequence.queued_tokens()),
                     .decodes = Decodes(sequence.Facts()),
                     .guess = {},
                     .sampling = {},
                     .view = *std::move(view)});
  }
  // Others would wait for the guessed rows.
  if (parts.size() == 1 && parts[0].decodes) {
    PrepareGuess(*Find(parts[0].id), parts[0]);
  }
  if (model->picks_tokens()) PreparePicks();
}

void Engine::Impl::PreparePicks() {
  for (Part& part : parts) {
    const EngineSequence& sequence = *Find(part.id);
    if (part.logits_rows == 1 && part.guess.empty() && sequence.PicksNext()) {
      part.sampling = sequence.client()->HowToPick();
    }
  }
}

void Engine::Impl::PrepareGuess(EngineSequence& sequence, Part& part) {
  const absl::Span<const int32_t> guess = sequence.Guess(
      std::min(NgramDraft::kMaxTokens, model->max_rows() - part.tokens));
  if (guess.empty()) return;
  absl::StatusOr<cache::KvView> view =
      sequence.ReserveGuess(static_cast<int>(guess.size()));
  if (!view.ok()) {  // there is no room for so many
    part.view = *sequence.Reserve(part.tokens);
    return;
  }
  part.guess = {sequence.FirstQueued(1)[0]};
  part.guess.insert(part.guess.end(), guess.begin(), guess.end());
  part.logits_rows += part.guessed();
  part.view = *std::move(view);
}

// Everything is committed before any client hears of it: from then on clients
// may do what they like.
absl::Status Engine::Impl::Compute() {
  if (parts.empty()) return absl::OkStatus();
  backends::Batch batch;
  for (Part& part : parts) {
    batch.chunks.push_back(
        {.token_ids = part.guess.empty()
                          ? Find(part.id)->FirstQueued(part.tokens)
                          : absl::MakeConstSpan(part.guess),
         .first_position = part.first,
         .view = &part.view,
         .num_logits = part.logits_rows});
    if (!part.sampling) continue;
    batch.chunks.back().sampling = {&*part.sampling, 1};
    batch.chunks.back().picked = {&part.picked, 1};
  }
  const size_t values = static_cast<size_t>(batch.logits_rows()) * vocabulary();
  if (logits.size() < values) logits.resize(values);
  const absl::Status status = model->Forward(
      batch, *storage, absl::MakeSpan(logits).subspan(0, values));
  ++table.steps;
  if (!status.ok()) return status;
  for (const Part& part : parts) Find(part.id)->Commit(part.tokens);
  return status;
}

void Engine::Impl::Observe(absl::Duration duration) {
  if (!observer || parts.empty()) return;
  StepTrace trace;
  trace.step = table.steps;
  trace.duration = duration;
  trace.accepted_before = std::exchange(accepted, 0);
  for (const Part& part : parts) {
    (part.decodes ? trace.decode_rows : trace.prefill_rows) += part.tokens;
    trace.draft_rows += part.guessed();
    trace.rows.emplace_back(part.id, part.tokens);
  }
  observer(trace);
}

void Engine::Impl::Deliver() {
  size_t offset = 0;
  for (const Part& part : parts) {
    const size_t values =
        static_cast<size_t>(part.rows_of_logits()) * vocabulary();
    const auto part_logits =
        absl::MakeConstSpan(logits).subspan(offset, values);
    part.guess.empty() ? DeliverTo(part, part_logits)
                       : DeliverGuess(part, part_logits);
    offset += values;
  }
}

// Row by row, as if each had been a step: a guessed token is committed when its
// client has picked it, and not before.
void Engine::Impl::DeliverGuess(const Part& part,
                                absl::Span<const float> part_logits) {
  const auto deliver = [&](int row) {
    Find(part.id)->client()->OnRows(
        part.first + row, 1,
        part_logits.subspan(row * vocabulary(), vocabulary()));
    return Find(part.id);  // null: the client has closed it
  };
  EngineSequence* sequence = deliver(0);
  int taken = 0;
  while (sequence != nullptr && taken < part.guessed() &&
         sequence->cached_tokens() == part.first + taken + 1 &&
         sequence->Accept(part.guess[taken + 1])) {
    sequence = deliver(++taken);
  }
  accepted += taken;
  if (sequence != nullptr) sequence->EndGuess(part.guessed(), taken);
}

void Engine::Impl::DeliverTo(const Part& part,
                             absl::Span<const float> part_logits) {
  EngineSequence* const sequence = Find(part.id);
  // Another client's call may have closed the sequence, or cut it back, and
  // changed what it wants.
  if (sequence == nullptr) return;
  if (sequence->cached_tokens() != part.first + part.tokens) return;
  if (part.anew == part.tokens) return;  // nothing new
  const int wanted = sequence->WantedRows(
      part.tokens, part.anew, part.tokens + sequence->queued_tokens());
  if (part.sampling && wanted == 1) {
    sequence->client()->OnPicked(part.first + part.anew,
                                 part.tokens - part.anew, part.picked);
    return;
  }
  const size_t values = static_cast<size_t>(wanted) * vocabulary();
  if (values > part_logits.size()) {
    part_logits = {};
  } else {
    part_logits.remove_prefix(part_logits.size() - values);
  }
  sequence->client()->OnRows(part.first + part.anew, part.tokens - part.anew,
                             part_logits);
}

void Engine::Impl::Fail(const std::vector<Failure>& failures) {
  for (const Failure& failure : failures) {
    EngineSequence* const sequence = Find(failure.id);
    if (sequence == nullptr) continue;
    sequence->DropPending();
    sequence->client()->OnError(failure.status);
  }
}

void Engine::Impl::PublishStats(bool now_idle) {
  EngineStats stats;
  stats.steps = table.steps;
  stats.sequences = static_cast<int64_t>(table.open.size());
  stats.waiting = left_out;
  stats.cache = table.cache.stats();
  stats.phase_times = model->phase_times();
  stats.last_step = status;
  stats.speculation = table.speculation;
  for (const auto& [id, sequence] : table.open) {
    stats.decoding += sequence->Facts().wants_logits;
  }
  absl::MutexLock lock(&mutex);
  published = stats;
  idle = now_idle;
  progress = Clock::now();
}

Engine::Engine(std::unique_ptr<backends::Model> model,
               std::unique_ptr<cache::KvStorage> storage,
               const EngineOptions& options) {
  // REQUIRES, and every later step would break it.
  if (model->max_rows() <
      options.max_decode_rows + options.prefill_chunk_tokens) {
    std::abort();
  }
  impl_ = std::make_unique<Impl>(std::move(model), std::move(storage), options);
  impl_->PublishStats(/*idle=*/true);
}

Engine::~Engine() { Stop(); }

void Engine::Start() {
  impl_->thread = std::thread([this] { impl_->Run(); });
}

void Engine::Stop() {
  impl_->queue.Close();
  if (impl_->thread.joinable()) impl_->thread.join();
  impl_->queue.Drop();
}

void Engine::Post(std::function<void()> task) {
  impl_->queue.Post(std::move(task));
}

absl::StatusOr<std::unique_ptr<Sequence>> Engine::Open(
    const cache::SequenceOptions& options, SequenceClient* client) {
  cache::SequenceOptions effective = options;
  effective.max_chunk_tokens = impl_->options.prefill_chunk_tokens;
  effective.rollback_tokens = options.rollback_tokens + 1;
  return EngineSequence::Open(effective, client, &impl_->table);
}

void Engine::SetStepObserver(std::function<void(const StepTrace&)> observer) {
  impl_->observer = std::move(observer);
}

const backends::ModelConfig& Engine::model_config() const {
  return impl_->model->config();
}

const cache::KvSpec& Engine::kv_spec() const { return impl_->storage->spec(); }

const EngineOptions& Engine::options() const { return impl_->options; }

EngineStats Engine::stats() const {
  absl::MutexLock lock(&impl_->mutex);
  EngineStats stats = impl_->published;
  if (!impl_->idle) {
    stats.progress_age = absl::FromChrono(Clock::now() - impl_->progress);
  }
  return stats;
}

}  // namespace millrace::engine
