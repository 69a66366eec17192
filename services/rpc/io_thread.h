// IoThread runs what must not run on the engine thread and must not wait for
// it: converting events and starting writes, for all streams; and it calls
// streams a few times a second for what depends on time.
//
//   io.Post([stream] { stream->Pump(); });   // any thread, cheap
//   io.Watch(stream);                        // stream->Tick(now) until it dies
//
// Thread-safe.
#ifndef MILLRACE_SERVICES_RPC_IO_THREAD_H_
#define MILLRACE_SERVICES_RPC_IO_THREAD_H_

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace millrace::rpc {

class Ticking {
 public:
  virtual ~Ticking() = default;
  virtual void Tick(absl::Time now) = 0;
};

class IoThread {
 public:
  static constexpr absl::Duration kTickInterval = absl::Milliseconds(100);

  IoThread();
  // Stops.
  ~IoThread();

  // Runs tasks in order of posting. After Stop they are dropped.
  void Post(std::function<void()> task);
  void Watch(std::weak_ptr<Ticking> ticking);
  // Finishes the running task and joins. Idempotent; not from a task.
  void Stop();

 private:
  void Run();
  void TickAll(absl::Time now);

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<Ticking>> watched_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_IO_THREAD_H_
