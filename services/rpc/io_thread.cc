#include "services/rpc/io_thread.h"

#include <utility>

#include "absl/time/clock.h"

namespace millrace::rpc {

IoThread::IoThread() : thread_([this] { Run(); }) {}

IoThread::~IoThread() { Stop(); }

void IoThread::Post(std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  if (!stopped_) tasks_.push_back(std::move(task));
}

void IoThread::Watch(std::weak_ptr<Ticking> ticking) {
  absl::MutexLock lock(&mutex_);
  watched_.push_back(std::move(ticking));
}

void IoThread::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void IoThread::Run() {
  absl::Time next_tick = absl::Now() + kTickInterval;
  while (true) {
    std::deque<std::function<void()>> tasks;
    {
      absl::MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopped_ || !tasks_.empty();
      };
      mutex_.AwaitWithDeadline(absl::Condition(&ready), next_tick);
      if (stopped_) return;
      tasks.swap(tasks_);
    }
    for (auto& task : tasks) task();
    if (const absl::Time now = absl::Now(); now >= next_tick) {
      TickAll(now);
      next_tick = now + kTickInterval;
    }
  }
}

void IoThread::TickAll(absl::Time now) {
  std::vector<std::shared_ptr<Ticking>> alive;
  {
    absl::MutexLock lock(&mutex_);
    std::vector<std::weak_ptr<Ticking>> kept;
    for (auto& ticking : watched_) {
      if (auto locked = ticking.lock()) {
        alive.push_back(std::move(locked));
        kept.push_back(std::move(ticking));
      }
    }
    watched_ = std::move(kept);
  }
  for (const auto& ticking : alive) ticking->Tick(now);
}

}  // namespace millrace::rpc
