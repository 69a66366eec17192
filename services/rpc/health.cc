#include "services/rpc/health.h"

#include <algorithm>
#include <utility>

namespace millrace::rpc {

HealthStates::HealthStates(const std::vector<std::string>& names) {
  for (const std::string& name : names) states_.emplace(name, false);
}

void HealthStates::Set(absl::string_view name, bool serving) {
  std::vector<std::function<bool()>> watchers;
  {
    absl::MutexLock lock(&mutex_);
    bool& state = states_.find(name)->second;
    if (std::exchange(state, serving) == serving) return;
    watchers.swap(watchers_);
  }
  std::erase_if(watchers, [](const auto& changed) { return !changed(); });
  absl::MutexLock lock(&mutex_);
  watchers_.insert(watchers_.end(), watchers.begin(), watchers.end());
}

std::optional<bool> HealthStates::Get(absl::string_view name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = states_.find(name);
  if (found == states_.end()) return std::nullopt;
  return found->second;
}

void HealthStates::Watch(std::function<bool()> changed) {
  absl::MutexLock lock(&mutex_);
  watchers_.push_back(std::move(changed));
}

}  // namespace millrace::rpc
