// ActiveRequests knows the requests that are being served, to count them and to
// end them when the server shuts down.
#ifndef MILLRACE_SERVICES_ONESHOT_ACTIVE_REQUESTS_H_
#define MILLRACE_SERVICES_ONESHOT_ACTIVE_REQUESTS_H_

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace millrace::oneshot {

class Request {
 public:
  virtual ~Request() = default;
  // The server cannot wait any longer: what is done is sent, and the request
  // ends. Any thread.
  virtual void Drain() = 0;
};

// Thread-safe.
class ActiveRequests {
 public:
  void Add(std::weak_ptr<Request> request);
  int count() const;
  void DrainAll();

 private:
  std::vector<std::shared_ptr<Request>> Alive() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::vector<std::weak_ptr<Request>> requests_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace::oneshot

#endif  // MILLRACE_SERVICES_ONESHOT_ACTIVE_REQUESTS_H_
