// The table of speeds that the cuda backend is judged by, each beside a probe
// of the same device taken right before and after it.
//
// Weights are made up (synthetic_model.h), so nothing has to be carried. Every
// figure is the median of several rounds.
#ifndef MILLRACE_TESTS_BENCHMARKS_GPU_TABLE_H_
#define MILLRACE_TESTS_BENCHMARKS_GPU_TABLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "backends/backend.h"
#include "backends/cuda/device.h"
#include "backends/model_file/model_config.h"

namespace millrace::benchmarks {

// The default model's shape, and that of a Llama of 7 billion weights.
backends::ModelConfig SmallShape();
backends::ModelConfig LargeShape();

struct GpuTableOptions {
  absl::StatusOr<std::unique_ptr<backends::Backend>> (*new_backend)(
      const backends::BackendOptions&) = nullptr;
  std::shared_ptr<backends::cuda::Device> device;  // probed
  backends::ModelConfig small = SmallShape();
  backends::ModelConfig large = LargeShape();

  int rounds = 5;
  int steps = 64;             // of decoding, in a round
  int sessions = 256;         // of the small model
  int window_tokens = 1020;   // besides 4 sinks
  int prefill_tokens = 2048;  // of the large model, in one chunk
  int64_t far_position = 1'000'000;
  int64_t probe_bytes = int64_t{1} << 30;
  int probe_steps = 20'000;
};

struct GpuFigure {
  std::string metric;
  double value = 0;
  std::string unit;
  double fraction = 0;  // of what `of` says
  std::string of;
};

// Hands each figure over as soon as it is there.
// REQUIRES: the device has room for the large model in 16 bits.
void MeasureGpu(const GpuTableOptions& options,
                absl::FunctionRef<void(const GpuFigure&)> on_figure);

}  // namespace millrace::benchmarks

#endif  // MILLRACE_TESTS_BENCHMARKS_GPU_TABLE_H_
