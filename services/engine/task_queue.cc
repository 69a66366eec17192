#include "services/engine/task_queue.h"

#include <utility>

namespace millrace::engine {

void TaskQueue::Post(Task task) {
  // A task that is not kept goes when the lock is free again: what it owns may
  // post.
  absl::MutexLock lock(&mutex_);
  if (!dropped_) tasks_.push_back(std::move(task));
}

bool TaskQueue::Take(bool wait, std::vector<Task>* tasks) {
  absl::MutexLock lock(&mutex_);
  if (wait) mutex_.Await(absl::Condition(this, &TaskQueue::ReadyToTake));
  if (closed_) return false;
  tasks->swap(tasks_);
  return true;
}

void TaskQueue::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

void TaskQueue::Drop() {
  std::vector<Task> tasks;  // destroyed when the lock is free again
  absl::MutexLock lock(&mutex_);
  dropped_ = true;
  tasks.swap(tasks_);
}

}  // namespace millrace::engine
