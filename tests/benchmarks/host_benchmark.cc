// What the host does for each step of a GPU, beside one that takes no time: the
// engine plans it, makes and uploads its image, launches its graph, and hands
// tokens to turns that put them into text. A GPU whose steps take longer never
// waits for it.
//
//   host_benchmark --sessions=1,64,256
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "backends/cuda/backend.h"
#include "backends/cuda/device.h"
#include "services/engine/engine.h"
#include "services/engine/sampling/recent_tokens.h"
#include "services/engine/turn.h"
#include "tests/benchmarks/gpu_table.h"
#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/named_policy.h"
#include "tests/testing/synthetic_model.h"

ABSL_FLAG(std::string, sessions, "1,64,256", "How many write at once.");
ABSL_FLAG(int, tokens, 512, "Tokens that each writes in a round.");
ABSL_FLAG(int, rounds, 5, "Rounds; medians are printed.");

namespace millrace::benchmarks {
namespace {

using backends::cuda::Event;
using backends::cuda::Graph;
using backends::cuda::Memory;
using Clock = std::chrono::steady_clock;

// Copies, and has kernels done before they are asked for. What they would have
// computed is zero, so every token is the first of the vocabulary.
class InstantDevice final : public backends::cuda::Device {
 public:
  std::string Info() const override { return "a GPU that takes no time"; }
  int num_multiprocessors() const override { return 132; }
  int64_t max_shared_bytes() const override { return 227 << 10; }
  int64_t FreeBytes() const override { return int64_t{80} << 30; }
  const backends::cuda::Kernels& kernels() const override { return kKernels; }
  const backends::cuda::Probes& probes() const override { std::abort(); }
  backends::cuda::Stream* stream() override { return nullptr; }

  absl::StatusOr<Memory> Allocate(int64_t bytes, absl::string_view) override {
    return Memory(static_cast<uint8_t*>(std::calloc(bytes, 1)), std::free);
  }
  absl::StatusOr<Memory> AllocateHost(int64_t bytes,
                                      absl::string_view what) override {
    return Allocate(bytes, what);
  }
  void Copy(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void Clear(void* memory, int64_t bytes) override {
    std::memset(memory, 0, bytes);
  }
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    return std::make_unique<Event>();
  }
  void Record(Event&) override {}
  absl::Status Wait(Event&) override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<Graph>> Capture(
      absl::FunctionRef<void()> enqueue) override {
    enqueue();
    return std::make_unique<Graph>();
  }
  void Launch(Graph&) override {}

 private:
  template <class Args>
  static void Nothing(backends::cuda::Stream*, const Args&) {}

  static constexpr backends::cuda::Kernels kKernels = {
      .embed = [](backends::cuda::Stream*, int,
                  const backends::cuda::EmbedArgs&) {},
      .product = Nothing,
      .attention = Nothing,
      .decode_attention = Nothing,
      .tensor_attention = Nothing,
      .attention_sums = Nothing,
      .pick = Nothing,
      .read_blocks = Nothing,
      .write_blocks = Nothing,
      .move_slots = Nothing,
  };
};

// A session as the engine sees it: turns over one text without end.
class Writer final : public engine::SequenceClient {
 public:
  Writer(engine::Engine* engine, const text::Tokenizer* tokenizer)
      : tokenizer_(tokenizer),
        sequence_(*engine->Open(
            {.policy = testing::NamedPolicy("sinks:window_tokens=1020")},
            this)) {}

  void Write(int tokens, absl::BlockingCounter* done) {
    engine::GenerationOptions options;
    options.stopping.max_tokens = tokens;
    options.stopping.repetition_guard = 0;  // they are all the same
    turn_ = std::make_unique<engine::Turn>(
        options, engine::Turn::Context{.turn = ++turns_,
                                       .tokenizer = tokenizer_,
                                       .recent = &recent_,
                                       .started = absl::Now()});
    done_ = done;
    sequence_->Append({1});
    sequence_->WantLogits(engine::Logits::kLast);
  }

  void OnRows(int64_t, int64_t, absl::Span<const float>) override {}
  std::optional<backends::RowSampling> HowToPick(int unknown_tokens) override {
    return turn_->HowToPick(unknown_tokens);
  }
  void OnPicked(int64_t, int64_t, int32_t id) override {
    const engine::TurnStep step = turn_->Next({.picked = id}, absl::Now());
    sequence_->Append({step.token_id});
    if (!step.finished) return;
    sequence_->WantLogits(engine::Logits::kNone);
    done_->DecrementCount();
  }
  void OnError(const absl::Status& status) override {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::exit(EXIT_FAILURE);
  }

 private:
  const text::Tokenizer* const tokenizer_;
  engine::RecentTokens recent_;
  uint64_t turns_ = 0;
  std::unique_ptr<engine::Turn> turn_;
  absl::BlockingCounter* done_ = nullptr;
  std::unique_ptr<engine::Sequence> sequence_;
};

// Microseconds a step.
double Round(engine::Engine& engine,
             std::vector<std::unique_ptr<Writer>>& writers, int tokens) {
  absl::BlockingCounter done(static_cast<int>(writers.size()));
  const uint64_t steps = engine.stats().steps;
  const Clock::time_point start = Clock::now();
  engine.Post([&] {
    for (const auto& writer : writers) writer->Write(tokens, &done);
  });
  done.Wait();
  const std::chrono::duration<double, std::micro> took = Clock::now() - start;
  return took.count() / static_cast<double>(engine.stats().steps - steps);
}

void Measure(const backends::ModelFile& file, int sessions) {
  const backends::ModelConfig& config = file.config();
  const auto backend =
      *backends::NewBackendOnDevice({}, std::make_shared<InstantDevice>());
  const cache::KvSpec spec = {config.num_layers, config.num_kv_heads,
                              config.head_dim, cache::KvDtype::kInt8};
  const engine::EngineOptions options = {
      .max_decode_rows = backend->capabilities().decode_rows,
      .prefill_chunk_tokens = backend->capabilities().prefill_chunk_tokens};
  const int rows = options.max_decode_rows + options.prefill_chunk_tokens;
  engine::Engine engine(*backend->LoadModel(file, {.max_rows = rows}),
                        *backend->CreateKvStorage(spec, sessions * 100),
                        options);
  const testing::FakeTokenizer tokenizer(
      std::vector<std::string>(config.vocabulary_size, " word"), {});
  engine.Start();
  std::vector<std::unique_ptr<Writer>> writers;
  absl::BlockingCounter opened(1);
  engine.Post([&] {
    for (int i = 0; i < sessions; ++i) {
      writers.push_back(std::make_unique<Writer>(&engine, &tokenizer));
    }
    opened.DecrementCount();
  });
  opened.Wait();
  const int tokens = absl::GetFlag(FLAGS_tokens);
  Round(engine, writers, 2 * tokens);  // fills windows, captures graphs
  std::vector<double> rounds;
  for (int i = 0; i < absl::GetFlag(FLAGS_rounds); ++i) {
    rounds.push_back(Round(engine, writers, tokens));
  }
  std::sort(rounds.begin(), rounds.end());
  std::printf("%4d sessions: %8.1f us of the host a step (%.1f to %.1f)\n",
              sessions, rounds[rounds.size() / 2], rounds.front(),
              rounds.back());
  engine.Stop();
}

}  // namespace
}  // namespace millrace::benchmarks

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("What the host does for a step of a GPU.");
  absl::ParseCommandLine(argc, argv);
  const auto file = millrace::testing::SyntheticModel(
      millrace::benchmarks::SmallShape(), millrace::backends::WeightType::kQ4_1,
      millrace::backends::WeightType::kQ8_0);
  for (const absl::string_view number :
       absl::StrSplit(absl::GetFlag(FLAGS_sessions), ',')) {
    int sessions = 0;
    if (!absl::SimpleAtoi(number, &sessions) || sessions < 1) {
      std::fprintf(stderr, "--sessions: '%s' is no number above 0\n",
                   std::string(number).c_str());
      return EXIT_FAILURE;
    }
    millrace::benchmarks::Measure(*file, sessions);
  }
}
