#include "services/oneshot/active_requests.h"

#include <algorithm>
#include <utility>

namespace millrace::oneshot {

void ActiveRequests::Add(std::weak_ptr<Request> request) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(requests_, [](const auto& r) { return r.expired(); });
  requests_.push_back(std::move(request));
}

int ActiveRequests::count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(
      std::count_if(requests_.begin(), requests_.end(),
                    [](const auto& r) { return !r.expired(); }));
}

void ActiveRequests::DrainAll() {
  std::vector<std::shared_ptr<Request>> alive;
  {
    absl::MutexLock lock(&mutex_);
    alive = Alive();
  }
  for (const auto& request : alive) request->Drain();
}

std::vector<std::shared_ptr<Request>> ActiveRequests::Alive() const {
  std::vector<std::shared_ptr<Request>> alive;
  for (const auto& request : requests_) {
    if (auto locked = request.lock()) alive.push_back(std::move(locked));
  }
  return alive;
}

}  // namespace millrace::oneshot
