// Measures a model in this process, step by step as it is told on standard
// input, so that a script can take turns with others on the same machine.
//
//   model_benchmark --model=model.gguf --threads=2
//
// First it prints a line of JSON about itself. Then each line of input is
// answered by one line of JSON:
//
//   probe MIB            read bandwidth, median of 9 passes: bytes_per_second
//   prefill TOKENS       one new sequence: seconds
//   decode SESSIONS DEPTH STEPS [moved|sums]
//                        at most 128 steps of all of them, DEPTH tokens in
//                        each cache before: seconds. With `moved` all keys were
//                        turned elsewhere than where they are looked at, half
//                        of them by different leads; with `sums` attention is
//                        added up too
//   rows ROWS DEPTH STEPS
//                        steps of ROWS tokens of one sequence behind DEPTH,
//                        with the logits of all, as guesses that are all
//                        refused: seconds
//   stream NAME TOKENS   reads into the sequence of that name under
//                        sinks:sink_tokens=4,window_tokens=1020: seconds
//   write NAME STEPS     its next steps: step_seconds, a list
//   phases               what all steps since the last such command took:
//                        seconds by phase
//
// Logits are computed of the last row, as the engine asks for them. Token ids
// do not matter for speed and are made up.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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
ABSL_FLAG(int, chunk, 64, "Tokens of a prefill chunk.");
ABSL_FLAG(int, blocks, 4096, "Blocks of 16 tokens for keys and values.");
ABSL_FLAG(std::string, kv_dtype, "", "How they are stored; empty: as served.");

namespace millrace::benchmarks {
namespace {

using cache::SequenceId;
using Json = nlohmann::ordered_json;
using testing::ModelRunner;

constexpr char kStreamPolicy[] = "sinks:sink_tokens=4,window_tokens=1020";

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start_ = Clock::now();
};

class ModelBenchmark {
 public:
  ModelBenchmark(std::unique_ptr<ModelRunner> runner, int threads, int chunk)
      : runner_(std::move(runner)), threads_(threads), chunk_(chunk) {}

  const cache::KvSpec& kv_spec() { return runner_->manager().spec(); }

  Json Probe(int mib) {
    std::unique_ptr<ReadProbe>& probe = probes_[mib];
    if (!probe) probe = std::make_unique<ReadProbe>(size_t(mib) << 20);
    return {{"bytes_per_second", probe->BytesPerSecond(threads_, 9)}};
  }

  Json Prefill(int tokens) {
    const Stopwatch watch;
    const SequenceId id = runner_->Open(testing::NamedPolicy("full"));
    Append(id, tokens);
    const double seconds = watch.Seconds();
    runner_->manager().Close(id);
    return {{"seconds", seconds}};
  }

  Json Decode(int sessions, int depth, int steps, const std::string& extra) {
    if (steps > kMostSteps) return {{"error", "too many steps"}};
    std::vector<SequenceId> ids;
    for (int i = 0; i < sessions; ++i) ids.push_back(OpenAt(i, depth));
    const double seconds =
        extra.empty() ? DecodePlain(ids, steps)
                      : DecodeMoved(ids, depth, steps, extra == "sums");
    for (const SequenceId id : ids) {
      if (!runner_->manager().Truncate(id, depth).ok()) std::abort();
    }
    return {{"seconds", seconds}};
  }

  Json Rows(int rows, int depth, int steps) {
    if (rows < 1 || rows > kMostSteps) return {{"error", "1 to 128 rows"}};
    const SequenceId id = OpenAt(0, depth);
    const Stopwatch watch;
    for (int i = 0; i < steps; ++i) {
      runner_->Advance({{id, Ids(depth, rows), rows}});
      if (!runner_->manager().Truncate(id, depth).ok()) std::abort();
    }
    return {{"seconds", watch.Seconds()}};
  }

  Json Phases() {
    const backends::PhaseTimes now = runner_->phase_times();
    Json seconds;
    for (int i = 0; i < backends::kNumPhases; ++i) {
      seconds[std::string(backends::PhaseName(i))] =
          absl::ToDoubleSeconds(now[i] - phases_told_[i]);
    }
    phases_told_ = now;
    return seconds;
  }

  Json Stream(const std::string& name, int64_t tokens) {
    const auto [stream, is_new] = streams_.try_emplace(name);
    if (is_new) {
      stream->second = runner_->Open(testing::NamedPolicy(kStreamPolicy));
    }
    const Stopwatch watch;
    Append(stream->second, tokens);
    return {{"seconds", watch.Seconds()}};
  }

  Json Write(const std::string& name, int steps) {
    const auto stream = streams_.find(name);
    if (stream == streams_.end()) return {{"error", "no such stream"}};
    std::vector<double> seconds;
    for (int i = 0; i < steps; ++i) {
      const Stopwatch watch;
      Step({stream->second});
      seconds.push_back(watch.Seconds());
    }
    return {{"step_seconds", seconds}};
  }

 private:
  std::vector<int32_t> Ids(int64_t begin, int n) {
    std::vector<int32_t> ids(n);
    for (int i = 0; i < n; ++i) {
      ids[i] = (7919 * (begin + i) + 13) % runner_->config().vocabulary_size;
    }
    return ids;
  }

  void Append(SequenceId id, int64_t tokens) {
    const int64_t end = runner_->manager().Length(id) + tokens;
    for (int64_t t; (t = runner_->manager().Length(id)) < end;) {
      const int rows = static_cast<int>(std::min<int64_t>(chunk_, end - t));
      const int num_logits = t + rows == end ? 1 : 0;
      runner_->Advance({{id, Ids(t, rows), num_logits}});
    }
  }

  void Step(const std::vector<SequenceId>& sequences) {
    std::vector<ModelRunner::Part> parts;
    for (const SequenceId id : sequences) {
      parts.push_back({id, Ids(runner_->manager().Length(id), 1), 1});
    }
    runner_->Advance(parts);
  }

  static constexpr int kMostSteps = 128;

  // Number `i` of those with so many tokens; kept for the next time.
  SequenceId OpenAt(int i, int depth) {
    std::vector<SequenceId>& open = open_[depth];
    while (static_cast<int>(open.size()) <= i) {
      open.push_back(runner_->Open(testing::NamedPolicy(absl::StrCat(
                                       "full:max_tokens=", depth + kMostSteps)),
                                   kMostSteps));
      Append(open.back(), depth);
    }
    return open[i];
  }

  double DecodePlain(const std::vector<SequenceId>& ids, int steps) {
    const Stopwatch watch;
    for (int i = 0; i < steps; ++i) Step(ids);
    return watch.Seconds();
  }

  double DecodeMoved(const std::vector<SequenceId>& ids, int depth, int steps,
                     bool sum) {
    const cache::KvSpec& spec = kv_spec();
    cache::HeadTable<int64_t> positions(spec.num_layers, spec.num_kv_heads,
                                        depth + steps);
    cache::HeadTable<float> sums(spec.num_layers, spec.num_kv_heads,
                                 depth + steps);
    Move(depth, positions);
    const Stopwatch watch;
    for (int i = 0; i < steps; ++i) {
      for (const SequenceId id : ids) {
        cache::KvView view = *runner_->manager().Reserve(id, 1);
        view.row_offset = kMovedBy;
        view.key_positions = &positions;
        if (sum) view.attention = {{1}, 0.999f, &sums};
        const std::vector<int32_t> token = Ids(depth + i, 1);
        backends::Batch batch;
        batch.chunks.push_back({token, depth + i + kMovedBy, &view, 1});
        runner_->Forward(batch);
        runner_->manager().Commit(id);
      }
    }
    return watch.Seconds();
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

  const std::unique_ptr<ModelRunner> runner_;
  const int threads_, chunk_;
  std::map<int, std::unique_ptr<ReadProbe>> probes_;
  std::map<int, std::vector<SequenceId>> open_;  // by depth
  std::map<std::string, SequenceId> streams_;
  backends::PhaseTimes phases_told_ = {};
};

Json Execute(ModelBenchmark& benchmark, const std::string& line) {
  std::istringstream in(line);
  std::string what, name, extra;
  int64_t a = 0, b = 0, c = 0;
  in >> what;
  if (what == "probe" && in >> a) return benchmark.Probe(a);
  if (what == "prefill" && in >> a) return benchmark.Prefill(a);
  if (what == "decode" && in >> a >> b >> c) {
    in >> extra;
    return benchmark.Decode(a, b, c, extra);
  }
  if (what == "rows" && in >> a >> b >> c) return benchmark.Rows(a, b, c);
  if (what == "stream" && in >> name >> a) return benchmark.Stream(name, a);
  if (what == "phases") return benchmark.Phases();
  if (what == "write" && in >> name >> a) return benchmark.Write(name, a);
  return {{"error", "not understood"}};
}

// Of the matrices that each phase reads.
Json PhaseBytes(const backends::ModelFile& file) {
  Json bytes = Json::object();
  for (const std::string& name : file.TensorNames()) {
    const size_t size = file.FindTensor(name)->data.size();
    const auto add = [&](const char* phase) {
      bytes[phase] = bytes.value(phase, size_t{0}) + size;
    };
    for (const auto& [part, phase] : {std::pair{"attn_q", "attention_input"},
                                      {"attn_k", "attention_input"},
                                      {"attn_v", "attention_input"},
                                      {"attn_output", "attention_output"},
                                      {"ffn_gate", "feed_forward_in"},
                                      {"ffn_up", "feed_forward_in"},
                                      {"ffn_down", "feed_forward_out"}}) {
      if (absl::StrContains(name, part)) add(phase);
    }
    const bool tied = file.config().tied_embedding;
    if (name == (tied ? "token_embd.weight" : "output.weight")) {
      add("logits");
    }
  }
  return bytes;
}

template <typename T>
T ValueOrExit(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << value.status() << "\n";
  std::exit(1);
}

// The one of --kv_dtype, else the backend's default.
cache::KvDtype DtypeOf(const backends::Backend& backend) {
  const std::string asked = absl::GetFlag(FLAGS_kv_dtype);
  if (asked.empty()) return backend.capabilities().kv_dtypes.front();
  const auto dtype = cache::FindKvDtype(asked);
  if (dtype) return *dtype;
  std::cerr << "--kv_dtype: there is no '" << asked << "'\n";
  std::exit(1);
}

int Main() {
  const auto file =
      ValueOrExit(backends::OpenModelFile(absl::GetFlag(FLAGS_model), {}));
  const int threads = absl::GetFlag(FLAGS_threads);
  const int chunk = absl::GetFlag(FLAGS_chunk);
  const std::string name = absl::GetFlag(FLAGS_backend);
  const backends::BackendOptions options = {
      .num_threads = threads, .cpu_kernels = absl::GetFlag(FLAGS_cpu_kernels)};
  const auto backend = ValueOrExit(backends::NewBackend(name, options));
  const cache::KvDtype dtype = DtypeOf(*backend);
  ModelBenchmark benchmark(
      ValueOrExit(ModelRunner::Create(
          *file, {.backend = name,
                  .backend_options = options,
                  .kv_dtype = dtype,
                  .max_rows = std::max(128, chunk),
                  .num_blocks = absl::GetFlag(FLAGS_blocks)})),
      threads, chunk);
  const Json about = {
      {"device", backend->DeviceInfo()},
      {"kv_dtype", std::string(KvDtypeName(dtype))},
      {"kv_bytes_per_token", benchmark.kv_spec().BytesPerToken()},
      {"weight_bytes", file->info().file_bytes},
      {"phase_bytes", PhaseBytes(*file)},
      {"sha256", file->info().sha256}};
  std::cout << about << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << Execute(benchmark, line) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace millrace::benchmarks

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("measures a model as standard input says");
  absl::ParseCommandLine(argc, argv);
  return millrace::benchmarks::Main();
}
