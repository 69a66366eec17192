// Prints the table of gpu_table.h for this machine's GPU.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "backends/cuda/backend.h"
#include "backends/cuda/cuda_device.h"
#include "tests/benchmarks/gpu_table.h"

int main() {
  using namespace millrace;  // NOLINT
  const auto device = backends::cuda::NewCudaDevice();
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", device.status().ToString().c_str());
    return EXIT_FAILURE;
  }
  const std::string date =
      absl::FormatTime("%Y-%m-%d", absl::Now(), absl::UTCTimeZone());
  std::printf("%s, %s\n", (*device)->Info().c_str(), date.c_str());
  benchmarks::MeasureGpu(
      {.new_backend = backends::NewCudaBackend, .device = *device},
      [](const benchmarks::GpuFigure& figure) {
        std::printf("%-36s %10.3f %-9s %6.3f of %s\n", figure.metric.c_str(),
                    figure.value, figure.unit.c_str(), figure.fraction,
                    figure.of.c_str());
        std::fflush(stdout);
      });
}
