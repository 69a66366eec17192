// LoadMeter knows how many tokens a second were read and written lately.
//
//   meter.Add(now, 64, 3);          // a step: tokens read, tokens written
//   meter.PerSecond(now).written;   // over the last 10 seconds
//
// Thread-safe.
#ifndef MILLRACE_SERVICES_SERVER_LOAD_METER_H_
#define MILLRACE_SERVICES_SERVER_LOAD_METER_H_

#include <array>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace millrace::server {

class LoadMeter {
 public:
  static constexpr int kSeconds = 10;

  struct Rates {
    double read = 0, written = 0;  // tokens per second
  };

  void Add(absl::Time now, int64_t read, int64_t written);
  Rates PerSecond(absl::Time now) const;

 private:
  struct Slot {
    int64_t second = 0;  // Unix time
    int64_t read = 0, written = 0;
  };

  mutable absl::Mutex mutex_;
  std::array<Slot, kSeconds> slots_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_LOAD_METER_H_
