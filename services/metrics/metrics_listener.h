// Serves GET /metrics over HTTP, on a listener of its own.
#ifndef MILLRACE_SERVICES_METRICS_METRICS_LISTENER_H_
#define MILLRACE_SERVICES_METRICS_METRICS_LISTENER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/metrics/metrics.h"

namespace millrace::metrics {

class MetricsListener {
 public:
  // Listens on a literal address such as "127.0.0.1:9090"; port 0 chooses one.
  // UNAVAILABLE names the address if it cannot be had.
  static absl::StatusOr<std::unique_ptr<MetricsListener>> Start(
      const std::string& address, const Metrics& metrics);
  ~MetricsListener();

  int port() const;

 private:
  struct Impl;
  explicit MetricsListener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace::metrics

#endif  // MILLRACE_SERVICES_METRICS_METRICS_LISTENER_H_
