// A small language for tests of the engine: an engine over the fake model, and
// writers that read a prompt and go on greedily.
#ifndef MILLRACE_TESTS_SERVICES_ENGINE_ENGINE_HARNESS_H_
#define MILLRACE_TESTS_SERVICES_ENGINE_ENGINE_HARNESS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/types/span.h"
#include "cache/cache_policy.h"
#include "services/engine/engine.h"
#include "tests/testing/fake_model.h"

namespace millrace::engine {

std::shared_ptr<const cache::CachePolicy> Full(int64_t max_tokens = 8192);
std::shared_ptr<const cache::CachePolicy> Sinks(int64_t sinks, int64_t window);

// `count` random token ids below 97; equal seeds give equal ids.
std::vector<int32_t> Text(uint64_t seed, int64_t count);

// The first `count` tokens that the fake model writes behind `prompt`.
std::vector<int32_t> Oracle(std::shared_ptr<const cache::CachePolicy> policy,
                            absl::Span<const int32_t> prompt, int count);

// How the fake model takes its steps.
enum class Steps {
  kAlone,
  kQueued,  // it picks tokens, and the next step is begun behind the last
};

class EngineHarness {
 public:
  explicit EngineHarness(const EngineOptions& options = {},
                         int32_t num_blocks = 20'000,
                         testing::FakeModelHooks model_hooks = {})
      : EngineHarness(Steps::kAlone, options, num_blocks,
                      std::move(model_hooks)) {}
  explicit EngineHarness(Steps steps, const EngineOptions& options = {},
                         int32_t num_blocks = 20'000,
                         testing::FakeModelHooks model_hooks = {});
  EngineHarness(std::unique_ptr<backends::Model> model,
                std::unique_ptr<cache::KvStorage> storage,
                const EngineOptions& options);
  ~EngineHarness() { engine.Stop(); }

  // Runs `task` on the engine thread and waits for its end.
  void Do(const std::function<void()>& task);

  const testing::FakeModelHooks hooks;
  Engine engine;
  std::vector<StepTrace> traces;  // on the engine thread, or after Stop

 private:
  void Start();
};

// Owns a sequence. All but WaitUntilDone is for the engine thread. It stops the
// engine before it goes, unless it has left.
class Writer : public SequenceClient {
 public:
  ~Writer() override;

  // What to do after a token was written, before the next one is computed.
  std::function<void(Writer&)> after_token;

  void Open(Engine* engine, std::shared_ptr<const cache::CachePolicy> policy,
            int64_t rollback_tokens = 0);
  void Read(absl::Span<const int32_t> ids) { sequence->Append(ids); }
  // Writes `count` tokens; then it is done.
  void Write(int64_t count);
  // Closes the sequence; the engine may go on without this writer.
  void Leave();
  void WaitUntilDone() { done_->WaitForNotification(); }

  void OnRows(int64_t first, int64_t count,
              absl::Span<const float> logits) override;
  // Greedily, too.
  std::optional<backends::RowSampling> HowToPick(int) override {
    return backends::RowSampling{};
  }
  void OnPicked(int64_t first, int64_t count, int32_t id) override;
  void OnError(const absl::Status& status) override;

  std::unique_ptr<Sequence> sequence;
  std::vector<int32_t> written;
  std::vector<std::pair<int64_t, int64_t>> rows;  // first, count
  std::vector<absl::Status> errors;               // an error ends the writing

 private:
  void Take(int32_t id);

  std::shared_ptr<absl::Notification> done_ =
      std::make_shared<absl::Notification>();
  int64_t left_ = 0;
  Engine* engine_ = nullptr;
};

// A client that keeps the logits of all rows, which come once and in order.
class Scorer : public SequenceClient {
 public:
  void OnRows(int64_t first, int64_t count,
              absl::Span<const float> logits) override;
  void OnError(const absl::Status&) override {}

  std::unique_ptr<Sequence> sequence;
  std::vector<float> all;   // [rows][97]
  absl::Notification done;  // nothing is pending any more
};

}  // namespace millrace::engine

#endif  // MILLRACE_TESTS_SERVICES_ENGINE_ENGINE_HARNESS_H_
