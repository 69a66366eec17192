#include "services/server/load_meter.h"

namespace millrace::server {

void LoadMeter::Add(absl::Time now, int64_t read, int64_t written) {
  const int64_t second = absl::ToUnixSeconds(now);
  absl::MutexLock lock(&mutex_);
  Slot& slot = slots_[second % kSeconds];
  if (slot.second != second) slot = {second, 0, 0};
  slot.read += read;
  slot.written += written;
}

LoadMeter::Rates LoadMeter::PerSecond(absl::Time now) const {
  const int64_t second = absl::ToUnixSeconds(now);
  Rates rates;
  absl::MutexLock lock(&mutex_);
  for (const Slot& slot : slots_) {
    if (second - slot.second >= kSeconds) continue;
    rates.read += static_cast<double>(slot.read) / kSeconds;
    rates.written += static_cast<double>(slot.written) / kSeconds;
  }
  return rates;
}

}  // namespace millrace::server
