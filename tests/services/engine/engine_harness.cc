#include "tests/services/engine/engine_harness.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cache/policies/full_policy.h"
#include "cache/policies/sinks_policy.h"
#include "services/engine/sampling/choose.h"

namespace millrace::engine {

std::shared_ptr<const cache::CachePolicy> Full(int64_t max_tokens) {
  return *cache::NewFullPolicy({.max_tokens = max_tokens}, 8192);
}

std::shared_ptr<const cache::CachePolicy> Sinks(int64_t sinks, int64_t window) {
  return *cache::NewSinksPolicy(
      {.sink_tokens = sinks, .window_tokens = window, .pinned_tokens = 0},
      8192);
}

std::vector<int32_t> Text(uint64_t seed, int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t dice =
        testing::Mix(testing::Mix(seed) + static_cast<uint64_t>(i));
    ids.push_back(static_cast<int32_t>(dice % 97));
  }
  return ids;
}

std::vector<int32_t> Oracle(std::shared_ptr<const cache::CachePolicy> policy,
                            absl::Span<const int32_t> prompt, int count) {
  testing::FakeOracle oracle({}, std::move(policy));
  oracle.Append(prompt);
  return oracle.DecodeGreedily(count);
}

EngineHarness::EngineHarness(Steps steps, const EngineOptions& options,
                             int32_t num_blocks,
                             testing::FakeModelHooks model_hooks)
    : hooks(std::move(model_hooks)),
      engine(std::make_unique<testing::FakeModel>(
                 testing::FakeModelOptions{.picks_tokens =
                                               steps == Steps::kQueued},
                 &hooks),
             std::make_unique<testing::FakeKvStorage>(num_blocks), options) {
  Start();
}

EngineHarness::EngineHarness(std::unique_ptr<backends::Model> model,
                             std::unique_ptr<cache::KvStorage> storage,
                             const EngineOptions& options)
    : engine(std::move(model), std::move(storage), options) {
  Start();
}

void EngineHarness::Start() {
  engine.SetStepObserver(
      [this](const StepTrace& trace) { traces.push_back(trace); });
  engine.Start();
}

void EngineHarness::Do(const std::function<void()>& task) {
  absl::Notification done;
  engine.Post([&] {
    task();
    done.Notify();
  });
  done.WaitForNotification();
}

Writer::~Writer() {
  if (engine_ != nullptr) engine_->Stop();
}

void Writer::Open(Engine* engine,
                  std::shared_ptr<const cache::CachePolicy> policy,
                  int64_t rollback_tokens) {
  engine_ = engine;
  sequence = *engine->Open({.policy = std::move(policy),
                            .max_chunk_tokens = 1,
                            .rollback_tokens = rollback_tokens},
                           this);
}

void Writer::Write(int64_t count) {
  left_ = count;
  done_ = std::make_shared<absl::Notification>();
  sequence->WantLogits(Logits::kLast);
}

void Writer::Leave() {
  sequence.reset();
  engine_ = nullptr;
}

void Writer::OnRows(int64_t first, int64_t count,
                    absl::Span<const float> logits) {
  rows.emplace_back(first, count);
  if (!logits.empty() && left_ > 0) Take(Greedy(logits));
}

void Writer::OnPicked(int64_t first, int64_t count, int32_t id) {
  rows.emplace_back(first, count);
  if (left_ > 0) Take(id);
}

void Writer::Take(int32_t id) {
  written.push_back(id);
  sequence->Append({written.back()});
  if (--left_ == 0) sequence->WantLogits(Logits::kNone);
  const std::shared_ptr<absl::Notification> done = done_;
  const bool finished = left_ == 0;
  if (after_token) after_token(*this);  // may close the sequence
  if (finished) done->Notify();
}

void Writer::OnError(const absl::Status& status) {
  errors.push_back(status);
  if (std::exchange(left_, 0) > 0) done_->Notify();
}

void Scorer::OnRows(int64_t first, int64_t count,
                    absl::Span<const float> logits) {
  EXPECT_EQ(first * 97, static_cast<int64_t>(all.size()));
  EXPECT_EQ(count * 97, static_cast<int64_t>(logits.size()));
  all.insert(all.end(), logits.begin(), logits.end());
  if (sequence->pending_tokens() == 0) done.Notify();
}

}  // namespace millrace::engine
