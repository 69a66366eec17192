#include "tests/benchmarks/gpu_table.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"
#include "tests/testing/synthetic_model.h"

namespace millrace::benchmarks {
namespace {

using backends::ModelConfig;
using backends::WeightType;
using cache::SequenceId;
using testing::ModelRunner;

constexpr int kChunk = 256;  // tokens that a sequence reads at once
constexpr int kBlocksPerMultiprocessor = 8;

double SecondsOf(absl::FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <typename T>
T ValueOrExit(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  std::exit(1);
}

void Check(const absl::Status& status) {
  if (!status.ok()) ValueOrExit<int>(status);
}

class DeviceProbe {
 public:
  explicit DeviceProbe(const GpuTableOptions& options)
      : device_(options.device),
        memory_(ValueOrExit(
            device_->Allocate(options.probe_bytes, "the read probe"))),
        out_(ValueOrExit(device_->Allocate(4 * Blocks(), "the probe's sums"))) {
    device_->Clear(memory_.get(), options.probe_bytes);
    args_ = {.blocks = Blocks(),
             .data = memory_.get(),
             .bytes = options.probe_bytes,
             .steps = options.probe_steps,
             .out = reinterpret_cast<float*>(out_.get())};
  }

  double BytesPerSecond() {
    return static_cast<double>(args_.bytes) /
           SecondsOfKernel(device_->probes().read);
  }
  double FlopsPerSecond() {
    return static_cast<double>(args_.blocks) * args_.steps *
           backends::cuda::kProbeFlops /
           SecondsOfKernel(device_->probes().multiply);
  }

 private:
  int Blocks() const {
    return kBlocksPerMultiprocessor * device_->num_multiprocessors();
  }

  // The second of two, when clocks are up.
  double SecondsOfKernel(void (*kernel)(backends::cuda::Stream*,
                                        const backends::cuda::ProbeArgs&)) {
    double seconds = 0;
    for (int i = 0; i < 2; ++i) {
      seconds = SecondsOf([&] {
        kernel(device_->stream(), args_);
        Check(device_->Synchronize());
      });
    }
    return seconds;
  }

  const std::shared_ptr<backends::cuda::Device> device_;
  const backends::cuda::Memory memory_, out_;
  backends::cuda::ProbeArgs args_ = {};
};

// Seconds of `work`, and what the probe says around it; medians.
struct Measured {
  double seconds, probe;
};
Measured Measure(int rounds, absl::FunctionRef<double()> probe,
                 absl::FunctionRef<void()> work) {
  work();  // captures graphs
  std::vector<double> seconds, probes;
  for (int i = 0; i < rounds; ++i) {
    const double before = probe();
    seconds.push_back(SecondsOf(work));
    probes.push_back((before + probe()) / 2);
  }
  return {Median(seconds), Median(probes)};
}

// A model with sequences that all advance together.
class Sessions {
 public:
  Sessions(const GpuTableOptions& options, const backends::ModelFile& file,
           int count, int max_rows, int window_tokens)
      : config_(file.config()),
        max_rows_(max_rows),
        runner_(ValueOrExit(ModelRunner::Create(
            file, {.new_backend = options.new_backend,
                   .kv_dtype = cache::KvDtype::kF16,
                   .max_rows = max_rows,
                   .num_blocks = count * BlocksOf(window_tokens)}))),
        policy_(absl::StrCat("sinks:sink_tokens=4,window_tokens=",
                             window_tokens)) {}

  SequenceId Open() { return runner_->Open(testing::NamedPolicy(policy_)); }
  void Close(SequenceId id) { runner_->manager().Close(id); }

  void Read(SequenceId id, int64_t tokens, int chunk) {
    for (int64_t left = tokens; left > 0; left -= chunk) {
      runner_->Advance({{id, Ids(std::min<int64_t>(chunk, left)), 1}});
    }
  }
  // Each step is begun behind the one before, as the engine does.
  void Decode(const std::vector<SequenceId>& ids, int steps) {
    OneStep turns[2];
    for (int i = 0; i < steps; ++i) {
      Begin(ids, /*is_first=*/i == 0, turns[i % 2]);
      if (i > 0) End();
    }
    End();
  }

 private:
  struct OneStep {
    std::vector<cache::KvView> views;
    std::vector<int32_t> picked;
  };

  void Begin(const std::vector<SequenceId>& ids, bool is_first, OneStep& step) {
    static constexpr int32_t kFirstToken[] = {1};
    static const backends::RowSampling kGreedy = {};
    step.views.resize(ids.size());
    step.picked.resize(ids.size());
    backends::Batch batch;
    for (size_t i = 0; i < ids.size(); ++i) {
      step.views[i] = ValueOrExit(runner_->manager().Reserve(ids[i], 1));
      batch.chunks.push_back(
          {.token_ids = kFirstToken,
           .first_position = runner_->manager().Length(ids[i]),
           .view = &step.views[i],
           .num_logits = 1,
           .sampling = {&kGreedy, 1},
           .picked = {&step.picked[i], 1},
           .picked_before = is_first ? -1 : static_cast<int>(i)});
    }
    Check(queue().Begin(batch, runner_->storage()));
    for (const SequenceId id : ids) runner_->manager().Commit(id);
  }
  void End() { Check(queue().End({})); }

  backends::StepQueue& queue() { return *runner_->model().step_queue(); }

  // A window, a chunk, and a block cut at either end.
  int BlocksOf(int window_tokens) const {
    return (4 + window_tokens + max_rows_) / cache::kBlockTokens + 4;
  }
  std::vector<int32_t> Ids(int64_t count) const {
    return testing::RandomIds(static_cast<int>(count), config_.vocabulary_size,
                              1);
  }

  const ModelConfig config_;
  const int max_rows_;
  const std::unique_ptr<ModelRunner> runner_;
  const std::string policy_;
};

// Bytes of the matrices that a step reads: all but an embedding of its own.
double StepBytes(const backends::ModelFile& file) {
  double bytes = 0;
  for (const std::string& name : file.TensorNames()) {
    if (name == "token_embd.weight" && !file.config().tied_embedding) continue;
    bytes += static_cast<double>(file.FindTensor(name)->data.size());
  }
  return bytes;
}

double KvBytesPerToken(const ModelConfig& config) {
  return 2.0 * 2 * config.num_layers * static_cast<double>(config.kv_size());
}

// Of a token: twice the weights of the layers. Attention is left out, and so
// are logits, which one row of a chunk gets.
double LayerFlops(const ModelConfig& c) {
  const double attention =
      static_cast<double>(c.embedding_size) *
      static_cast<double>(2 * c.query_size() + 2 * c.kv_size());
  const double feed_forward =
      3.0 * c.embedding_size * static_cast<double>(c.feed_forward_size);
  return 2 * c.num_layers * (attention + feed_forward);
}

class Table {
 public:
  Table(const GpuTableOptions& options,
        absl::FunctionRef<void(const GpuFigure&)> on_figure)
      : options_(options), on_figure_(on_figure), probe_(options) {}

  void Small() {
    const auto file = testing::SyntheticModel(options_.small, WeightType::kQ4_1,
                                              WeightType::kQ8_0);
    Decode("135M shape, Q4_1, one session", *file, 1);
    Decode(absl::StrCat("135M shape, ", options_.sessions, " sessions"), *file,
           options_.sessions);
    Far(*file);
  }

  void Large() {
    Decode("7B shape, Q4_1, one session",
           *testing::SyntheticModel(options_.large, WeightType::kQ4_1,
                                    WeightType::kQ8_0),
           1);
    const auto file = testing::SyntheticModel(options_.large, WeightType::kBF16,
                                              WeightType::kBF16);
    Decode("7B shape, BF16, one session", *file, 1);
    Prefill(*file);
  }

 private:
  // Sessions whose windows are full.
  void Decode(const std::string& metric, const backends::ModelFile& file,
              int count) {
    Sessions sessions(options_, file, count, std::max(count, kChunk),
                      options_.window_tokens);
    std::vector<SequenceId> ids;
    for (int i = 0; i < count; ++i) {
      ids.push_back(sessions.Open());
      sessions.Read(ids.back(), 4 + options_.window_tokens, kChunk);
    }
    const Measured measured = Measure(
        options_.rounds, [&] { return probe_.BytesPerSecond(); },
        [&] { sessions.Decode(ids, options_.steps); });
    const double step = measured.seconds / options_.steps;
    const double bytes = StepBytes(file) + count *
                                               KvBytesPerToken(file.config()) *
                                               (4 + options_.window_tokens);
    on_figure_(
        {metric, count / step, "tokens/s", bytes / step / measured.probe,
         absl::StrCat("reading, probe ", measured.probe / 1e9, " GB/s")});
  }

  void Prefill(const backends::ModelFile& file) {
    const int tokens = options_.prefill_tokens;
    Sessions sessions(options_, file, 1, tokens, tokens);
    const Measured measured = Measure(
        options_.rounds, [&] { return probe_.FlopsPerSecond(); },
        [&] {
          const SequenceId id = sessions.Open();
          sessions.Read(id, tokens, tokens);
          sessions.Close(id);
        });
    const double flops = LayerFlops(file.config()) * tokens / measured.seconds;
    on_figure_(
        {absl::StrCat("7B shape, BF16, prefill of ", tokens), flops / 1e12,
         "TFLOP/s", flops / measured.probe,
         absl::StrCat("mma.sync, probe ", measured.probe / 1e12, " TFLOP/s")});
  }

  // Two sequences take turns: one far on in its text, one whose window has just
  // become full.
  void Far(const backends::ModelFile& file) {
    Sessions sessions(options_, file, 2, kChunk, options_.window_tokens);
    const SequenceId far = sessions.Open(), fresh = sessions.Open();
    sessions.Read(far, options_.far_position, kChunk);
    sessions.Read(fresh, 4 + options_.window_tokens, kChunk);
    sessions.Decode({far}, options_.steps);
    sessions.Decode({fresh}, options_.steps);
    std::vector<double> ratios;
    for (int i = 0; i < options_.rounds; ++i) {
      const double a =
          SecondsOf([&] { sessions.Decode({far}, options_.steps); });
      const double b =
          SecondsOf([&] { sessions.Decode({fresh}, options_.steps); });
      ratios.push_back(a / b);
    }
    on_figure_({absl::StrCat("a step at position ", options_.far_position),
                Median(ratios), "times", Median(ratios),
                "a step in a fresh window"});
  }

  const GpuTableOptions& options_;
  const absl::FunctionRef<void(const GpuFigure&)> on_figure_;
  DeviceProbe probe_;
};

}  // namespace

ModelConfig SmallShape() {
  return {.architecture = "llama",
          .name = "135M shape",
          .num_layers = 30,
          .num_heads = 9,
          .num_kv_heads = 3,
          .head_dim = 64,
          .embedding_size = 576,
          .feed_forward_size = 1536,
          .vocabulary_size = 49152,
          .trained_context = 8192,
          .rope_base = 100000,
          .tied_embedding = true};
}

ModelConfig LargeShape() {
  return {.architecture = "llama",
          .name = "7B shape",
          .num_layers = 32,
          .num_heads = 32,
          .num_kv_heads = 32,
          .head_dim = 128,
          .embedding_size = 4096,
          .feed_forward_size = 11008,
          .vocabulary_size = 32000,
          .trained_context = 8192};
}

void MeasureGpu(const GpuTableOptions& options,
                absl::FunctionRef<void(const GpuFigure&)> on_figure) {
  Table table(options, on_figure);
  table.Small();
  table.Large();
}

}  // namespace millrace::benchmarks
