#include "services/engine/engine.h"

#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/engine/engine_sequence.h"
#include "services/engine/step_runner.h"
#include "services/engine/task_queue.h"

namespace millrace::engine {
namespace {

using Clock = std::chrono::steady_clock;

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
              .steps = 0},
        steps(*model, *storage, options, table) {
    SetObserver([](const StepTrace&) {});
  }

  void Run();
  void SetObserver(std::function<void(const StepTrace&)> observer);
  void PublishStats(bool idle);

  const EngineOptions options;
  const std::unique_ptr<backends::Model> model;
  const std::unique_ptr<cache::KvStorage> storage;
  SequenceTable table;
  StepRunner steps;
  TaskQueue queue;
  std::thread thread;

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
    if (!tasks.empty()) steps.Drain();
    for (TaskQueue::Task& task : tasks) {
      std::exchange(task, nullptr)();  // what it owns goes with it
    }
    tasks.clear();
    busy = steps.RunStep();
    PublishStats(/*idle=*/!busy);
  }
}

void Engine::Impl::SetObserver(std::function<void(const StepTrace&)> observer) {
  steps.SetObserver(
      [this, observer = std::move(observer)](const StepTrace& trace) {
        observer(trace);
        PublishStats(/*idle=*/false);
      });
}

void Engine::Impl::PublishStats(bool now_idle) {
  EngineStats stats;
  stats.steps = table.steps;
  stats.sequences = static_cast<int64_t>(table.open.size());
  stats.waiting = steps.left_out();
  stats.cache = table.cache.stats();
  stats.phase_times = model->phase_times();
  stats.last_step = steps.status();
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
  effective.rollback_tokens = options.rollback_tokens + extra_rollback_tokens();
  return EngineSequence::Open(effective, client, &impl_->table);
}

void Engine::SetStepObserver(std::function<void(const StepTrace&)> observer) {
  impl_->SetObserver(std::move(observer));
}

int64_t Engine::extra_rollback_tokens() const {
  return impl_->model->step_queue() == nullptr ? 1 : 2;
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
