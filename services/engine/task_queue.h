// TaskQueue hands tasks from any thread to the engine thread, in order.
#ifndef MILLRACE_SERVICES_ENGINE_TASK_QUEUE_H_
#define MILLRACE_SERVICES_ENGINE_TASK_QUEUE_H_

#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace millrace::engine {

// Thread-safe.
class TaskQueue {
 public:
  using Task = std::function<void()>;

  // After Drop the task is destroyed at once.
  void Post(Task task);

  // Moves all tasks to `tasks`, which is empty; waits for one if `wait`. False,
  // and no tasks, once the queue is closed.
  bool Take(bool wait, std::vector<Task>* tasks);

  // Ends Take. Tasks are kept, since they may own what the engine thread uses.
  void Close();
  // Destroys all tasks, present and future. REQUIRES: nobody takes any more.
  void Drop();

 private:
  bool ReadyToTake() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || !tasks_.empty();
  }

  absl::Mutex mutex_;
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool dropped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_TASK_QUEUE_H_
