// The table for GPUs, on the emulated device with tiny models.

#include "tests/benchmarks/gpu_table.h"

#include <cmath>
#include <string>
#include <vector>

#include "backends/cuda/backend.h"
#include "gmock/gmock.h"
#include "tests/testing/cuda_emulator/emulated_device.h"

namespace millrace::benchmarks {
namespace {

absl::StatusOr<std::unique_ptr<backends::Backend>> NewEmulatedBackend(
    const backends::BackendOptions& options) {
  return backends::NewBackendOnDevice(options,
                                      backends::cuda::NewEmulatedDevice());
}

backends::ModelConfig Tiny() {
  return {.architecture = "llama",
          .name = "tiny",
          .num_layers = 2,
          .num_heads = 2,
          .num_kv_heads = 1,
          .head_dim = 16,
          .embedding_size = 32,
          .feed_forward_size = 64,
          .vocabulary_size = 300,
          .trained_context = 8192};
}

TEST(GpuTableTest, EveryMetricHasAFigure) {
  std::vector<std::string> metrics;
  MeasureGpu({.new_backend = NewEmulatedBackend,
              .device = backends::cuda::NewEmulatedDevice(),
              .small = Tiny(),
              .large = Tiny(),
              .rounds = 2,
              .steps = 3,
              .sessions = 5,
              .window_tokens = 40,
              .prefill_tokens = 50,
              .far_position = 300,
              .probe_bytes = 1 << 16,
              .probe_steps = 2},
             [&](const GpuFigure& figure) {
               metrics.push_back(figure.metric);
               EXPECT_TRUE(std::isfinite(figure.value)) << figure.metric;
               EXPECT_GT(figure.value, 0) << figure.metric;
               EXPECT_TRUE(std::isfinite(figure.fraction)) << figure.metric;
               EXPECT_GT(figure.fraction, 0) << figure.metric;
             });
  EXPECT_THAT(metrics, ::testing::ElementsAre("135M shape, Q4_1, one session",
                                              "135M shape, 5 sessions",
                                              "a step at position 300",
                                              "7B shape, Q4_1, one session",
                                              "7B shape, BF16, one session",
                                              "7B shape, BF16, prefill of 50"));
}

// 7B: 6.7 billion weights.
TEST(GpuTableTest, TheLargeShapeIsThatOf7B) {
  const backends::ModelConfig c = LargeShape();
  const double layer = 4.0 * c.embedding_size * c.embedding_size +
                       3.0 * c.embedding_size * c.feed_forward_size;
  const double all =
      c.num_layers * layer + 2.0 * c.vocabulary_size * c.embedding_size;
  EXPECT_NEAR(all / 1e9, 6.74, 0.01);
}

}  // namespace
}  // namespace millrace::benchmarks
