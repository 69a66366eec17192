// Decode and prefill of a real model, with the machine's read bandwidth before
// and after each figure, because it moves within minutes.
//
//   model_benchmark --model=model.gguf --threads=2 --rounds=5
//
// A round is: probe, prefill, probe, decode at each depth, probe. Printed are
// medians with the 10th and 90th percentile of the rounds, and for decode B:
// bytes that must be read per token (weights once, K/V once) times tokens per
// second, over the probe's bytes per second.
//
// With --moved, each decode is done twice more: with keys that were turned
// elsewhere than where they are looked at, half of them all by different leads,
// and with attention added up as well (cache/kv_view.h); printed is the time of
// a step as a share of the plain one's of the same round.
//
// With several --kv_dtypes their rounds alternate, and each decode is also
// printed as a share of the first dtype's of the same round.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "backends/model_file/registry.h"
#include "backends/registry.h"
#include "cache/cache_manager.h"
#include "cache/head_table.h"
#include "cache/kv_view.h"
#include "tests/benchmarks/read_probe.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/named_policy.h"

ABSL_FLAG(std::string, model, "", "Model file (GGUF).");
ABSL_FLAG(std::string, backend, "onednn", "Backend.");
ABSL_FLAG(std::string, cpu_kernels, "auto", "Kernels of the CPU backend.");
ABSL_FLAG(int, threads, 2, "Compute threads.");
ABSL_FLAG(int, rounds, 5, "Rounds of measuring.");
ABSL_FLAG(int, prompt, 512, "Tokens of a prefill.");
ABSL_FLAG(int, chunk, 64, "Tokens of a prefill chunk.");
ABSL_FLAG(int, decode, 64, "Tokens decoded at each depth.");
ABSL_FLAG(bool, moved, false, "Also decode with moved keys and with sums.");
ABSL_FLAG(std::vector<std::string>, kv_dtypes,
          (std::vector<std::string>{"f16"}),
          "How keys and values are stored, a list.");
ABSL_FLAG(std::vector<std::string>, depths,
          (std::vector<std::string>{"256", "2048"}),
          "Tokens in the cache before decoding, a list.");

namespace millrace::benchmarks {
namespace {

using testing::ModelRunner;

double Now() {
  const std::chrono::duration<double> now =
      std::chrono::steady_clock::now().time_since_epoch();
  return now.count();
}

// A figure's values over the rounds.
struct Series {
  std::string name;
  std::vector<double> values;

  double Percentile(double p) const {
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(p * (sorted.size() - 1) + 0.5)];
  }
  void Print(const char* unit) const {
    std::printf("%-28s %8.1f %s   p10 %.1f  p90 %.1f\n", name.c_str(),
                Percentile(0.5), unit, Percentile(0.1), Percentile(0.9));
  }
};

class ModelBenchmark {
 public:
  ModelBenchmark(const backends::ModelFile& file, int64_t weight_bytes,
                 cache::KvDtype dtype)
      : weight_bytes_(weight_bytes),
        threads_(absl::GetFlag(FLAGS_threads)),
        runner_(*ModelRunner::Create(
            file, {.backend = absl::GetFlag(FLAGS_backend),
                   .backend_options = {.num_threads = threads_,
                                       .cpu_kernels =
                                           absl::GetFlag(FLAGS_cpu_kernels)},
                   .kv_dtype = dtype,
                   .max_rows = std::max(128, absl::GetFlag(FLAGS_chunk)),
                   .num_blocks = 1200})) {
    for (const std::string& depth : absl::GetFlag(FLAGS_depths)) {
      depths_.push_back(std::stoi(depth));
      decode_.push_back({"decode at " + depth, {}});
      share_.push_back({"B of decode at " + depth, {}});
      moved_.push_back({"time, keys moved, at " + depth, {}});
      summed_.push_back({"time, and sums, at " + depth, {}});
    }
  }

  void Round() {
    double before = Probe();
    prefill_.values.push_back(Prefill(absl::GetFlag(FLAGS_prompt)));
    for (size_t i = 0; i < depths_.size(); ++i) {
      const double rate = Decode(depths_[i], Extra::kNone);
      const double after = Probe();
      decode_[i].values.push_back(rate);
      share_[i].values.push_back(200 * rate * BytesPerToken(depths_[i]) /
                                 (before + after));
      before = after;
      if (!absl::GetFlag(FLAGS_moved)) continue;
      moved_[i].values.push_back(100 * rate /
                                 Decode(depths_[i], Extra::kMoved));
      summed_[i].values.push_back(100 * rate /
                                  Decode(depths_[i], Extra::kSums));
    }
  }

  void Print() const {
    std::printf(
        "K/V in %s\n",
        std::string(KvDtypeName(runner_->manager().spec().dtype)).c_str());
    probe_.Print("GB/s");
    prefill_.Print("tok/s");
    for (const Series& series : decode_) series.Print("tok/s");
    for (const Series& series : share_) series.Print("%    ");
    if (!absl::GetFlag(FLAGS_moved)) return;
    for (const Series& series : moved_) series.Print("%    ");
    for (const Series& series : summed_) series.Print("%    ");
  }

  // Decode as a share of another's, round by round.
  void PrintAgainst(const ModelBenchmark& other) const {
    for (size_t i = 0; i < depths_.size(); ++i) {
      Series ratio{decode_[i].name + ", share", {}};
      for (size_t round = 0; round < decode_[i].values.size(); ++round) {
        ratio.values.push_back(100 * decode_[i].values[round] /
                               other.decode_[i].values[round]);
      }
      ratio.Print("%    ");
    }
  }

 private:
  double Probe() {
    const double rate = memory_.BytesPerSecond(threads_, 9);
    probe_.values.push_back(rate * 1e-9);
    return rate;
  }

  double BytesPerToken(int depth) const {
    return weight_bytes_ + 1.0 * runner_->manager().spec().BytesPerToken() *
                               (depth + 0.5 * absl::GetFlag(FLAGS_decode));
  }

  cache::SequenceId OpenAt(int depth) {
    const cache::SequenceId id = runner_->Open(testing::NamedPolicy("full"));
    const int chunk = absl::GetFlag(FLAGS_chunk);
    for (int t = 0; t < depth; t += chunk) {
      Step(id, t, std::min(chunk, depth - t));
    }
    return id;
  }

  // Ids do not matter for speed.
  void Step(cache::SequenceId id, int t, int n) {
    std::vector<int32_t> ids(n);
    for (int i = 0; i < n; ++i) {
      ids[i] = (7919 * (t + i) + 13) % runner_->config().vocabulary_size;
    }
    runner_->Step({{id, std::move(ids), 1}});
  }

  // Tokens per second; logits of the last row of each chunk alone.
  double Prefill(int tokens) {
    const double start = Now();
    const cache::SequenceId id = OpenAt(tokens);
    const double seconds = Now() - start;
    runner_->manager().Close(id);
    return tokens / seconds;
  }

  enum class Extra { kNone, kMoved, kSums };

  double Decode(int depth, Extra extra) {
    const cache::SequenceId id = OpenAt(depth);
    const int n = absl::GetFlag(FLAGS_decode);
    const cache::KvSpec& spec = runner_->manager().spec();
    cache::HeadTable<int64_t> positions(spec.num_layers, spec.num_kv_heads,
                                        depth + n);
    cache::HeadTable<float> sums(spec.num_layers, spec.num_kv_heads, depth + n);
    Move(depth, positions);
    const double start = Now();
    for (int i = 0; i < n; ++i) {
      if (extra == Extra::kNone) {
        Step(id, depth + i, 1);
        continue;
      }
      cache::KvView view = *runner_->manager().Reserve(id, 1);
      view.row_offset = kMovedBy;
      view.key_positions = &positions;
      if (extra == Extra::kSums) view.attention = {{1}, 0.999f, &sums};
      const std::vector<int32_t> ids = {5};
      backends::Batch batch;
      batch.chunks.push_back({ids, depth + i + kMovedBy, &view, 1});
      runner_->Forward(batch);
      runner_->manager().Commit(id);
    }
    const double seconds = Now() - start;
    runner_->manager().Close(id);
    return n / seconds;
  }

  static constexpr int64_t kMovedBy = 10'000'000;

  // The first half with gaps after every token, the rest without.
  static void Move(int depth, cache::HeadTable<int64_t>& positions) {
    for (int layer = 0; layer < positions.num_layers(); ++layer) {
      for (int h = 0; h < positions.num_kv_heads(); ++h) {
        const auto at = positions.At(layer, h);
        for (int64_t i = 0; i < positions.capacity(); ++i) {
          at[i] = i + std::min<int64_t>(kMovedBy, kMovedBy * 2 * i / depth);
        }
      }
    }
  }

  const int64_t weight_bytes_;
  const int threads_;
  const ReadProbe memory_{size_t{96} << 20};
  const std::unique_ptr<ModelRunner> runner_;
  std::vector<int> depths_;
  Series probe_{"read probe, 96 MiB", {}};
  Series prefill_{"prefill", {}};
  std::vector<Series> decode_, share_, moved_, summed_;
};

int Main() {
  auto file = backends::OpenModelFile(absl::GetFlag(FLAGS_model), {});
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", file.status().ToString().c_str());
    return 1;
  }
  const backends::BackendOptions options = {
      .num_threads = absl::GetFlag(FLAGS_threads),
      .cpu_kernels = absl::GetFlag(FLAGS_cpu_kernels)};
  auto backend = backends::NewBackend(absl::GetFlag(FLAGS_backend), options);
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().ToString().c_str());
    return 1;
  }
  const backends::ModelFileInfo& info = (*file)->info();
  std::printf("%s\nmodel %.16s..., %s, prefill in chunks of %d\n",
              (*backend)->DeviceInfo().c_str(), info.sha256.c_str(),
              info.weight_types.c_str(), absl::GetFlag(FLAGS_chunk));
  std::vector<std::unique_ptr<ModelBenchmark>> benchmarks;
  for (const std::string& name : absl::GetFlag(FLAGS_kv_dtypes)) {
    const std::optional<cache::KvDtype> dtype = cache::FindKvDtype(name);
    if (!dtype) {
      std::fprintf(stderr, "--kv_dtypes: there is no '%s'\n", name.c_str());
      return 1;
    }
    benchmarks.push_back(
        std::make_unique<ModelBenchmark>(**file, info.file_bytes, *dtype));
  }
  for (int i = 0; i < absl::GetFlag(FLAGS_rounds); ++i) {
    for (const auto& benchmark : benchmarks) benchmark->Round();
  }
  for (const auto& benchmark : benchmarks) {
    benchmark->Print();
    if (benchmark != benchmarks[0]) benchmark->PrintAgainst(*benchmarks[0]);
  }
  return 0;
}

}  // namespace
}  // namespace millrace::benchmarks

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("measures decode and prefill of a model");
  absl::ParseCommandLine(argc, argv);
  return millrace::benchmarks::Main();
}
