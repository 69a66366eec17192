#include "services/metrics/metrics_listener.h"

#include <prometheus/exposer.h>

#include <exception>

#include "absl/strings/str_cat.h"

namespace millrace::metrics {
namespace {

constexpr int kThreads = 2;  // scrapes at once; more wait

}  // namespace

struct MetricsListener::Impl {
  explicit Impl(const std::string& address) : exposer(address, kThreads) {}
  prometheus::Exposer exposer;
  std::shared_ptr<prometheus::Collectable> collectable;
};

absl::StatusOr<std::unique_ptr<MetricsListener>> MetricsListener::Start(
    const std::string& address, const Metrics& metrics) {
  try {  // the library's own errors; none leaves this function
    auto impl = std::make_unique<Impl>(address);
    impl->collectable = metrics.collectable();
    impl->exposer.RegisterCollectable(impl->collectable);
    return std::unique_ptr<MetricsListener>(
        new MetricsListener(std::move(impl)));
  } catch (const std::exception&) {
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", address, " for metrics: in use or not ours"));
  }
}

MetricsListener::MetricsListener(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}
MetricsListener::~MetricsListener() = default;

int MetricsListener::port() const {
  const std::vector<int> ports = impl_->exposer.GetListeningPorts();
  return ports.empty() ? 0 : ports.front();
}

}  // namespace millrace::metrics
