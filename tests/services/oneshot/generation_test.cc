#include "services/oneshot/generation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "services/errors/errors.h"
#include "tests/services/oneshot/harness.h"

namespace millrace::oneshot {
namespace {

using engine::FinishReason;

engine::GenerationOptions Greedy(uint64_t max_tokens) {
  engine::GenerationOptions options;
  options.sampling.temperature = 0;
  options.stopping.max_tokens = max_tokens;
  options.stopping.ignore_end_of_turn = true;
  options.stopping.repetition_guard = 0;
  return options;
}

std::vector<int32_t> Prompt(int tokens) {
  std::vector<int32_t> ids;
  for (int i = 0; i < tokens; ++i) ids.push_back((i * 7) % 96);
  return ids;
}

// A request whose events are read until its turn has finished.
class Reader {
 public:
  void Start(Harness& harness, GenerationRequest request) {
    generation =
        Generation::Start(harness.deps, std::move(request), outcome.callback());
    generation->log().SetWakeUp([this] {
      absl::MutexLock lock(&mutex_);
      woken_ = true;
    });
  }

  void ReadToEnd() {
    while (!finished) {
      while (auto event = generation->log().Take()) Read(*event);
      if (finished) return;
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&woken_));
      woken_ = false;
    }
  }

  std::shared_ptr<Generation> generation;
  Outcome outcome;
  std::vector<int32_t> ids;
  std::vector<session::CacheUpdated> updates;
  std::optional<session::TurnFinished> finished;

 private:
  void Read(const session::Event& event) {
    if (const auto* output = std::get_if<session::Output>(&event.body)) {
      ids.insert(ids.end(), output->token_ids.begin(), output->token_ids.end());
    } else if (const auto* update =
                   std::get_if<session::CacheUpdated>(&event.body)) {
      updates.push_back(*update);
    } else {
      finished = std::get<session::TurnFinished>(event.body);
    }
  }

  absl::Mutex mutex_;
  bool woken_ = false;
};

// What the definition of the policy gives, computed without a cache; the last
// token, which ends a turn, has no probability.
std::vector<int32_t> Expected(const cache::MadePolicy& policy,
                              const std::vector<int32_t>& prompt, int count) {
  testing::FakeOracle oracle({}, policy.policy);
  oracle.Append(prompt);
  std::vector<int32_t> written;
  for (int i = 0; i < count; ++i) {
    const std::vector<float> logits = oracle.Logits(oracle.length() - 1);
    const auto best = std::max_element(logits.begin(), logits.end() - 1);
    written.push_back(static_cast<int32_t>(best - logits.begin()));
    oracle.Append({written.back()});
  }
  return written;
}

TEST(Generation, WritesAfterThePromptUntilTheBudgetEnds) {
  Harness harness;
  Reader reader;
  const auto policy = Harness::Policy("full:max_tokens=100");
  reader.Start(harness, {"a", Prompt(20), policy, Greedy(30)});
  reader.ReadToEnd();
  EXPECT_TRUE(reader.outcome.Wait().ok());
  EXPECT_EQ(reader.ids.size(), 30u);
  EXPECT_EQ(reader.finished->reason, FinishReason::kMaxTokens);
  EXPECT_EQ(reader.finished->usage.input_tokens, 20u);
  EXPECT_EQ(reader.finished->usage.generated_tokens, 30u);
  EXPECT_EQ(reader.finished->usage.text_position, 50u);
  EXPECT_EQ(reader.finished->usage.visible_tokens, 50u);
  EXPECT_EQ(reader.ids, Expected(policy, Prompt(20), 30));
  EXPECT_TRUE(reader.updates.empty());
}

TEST(Generation, TellsWhatWasEvicted) {
  Harness harness;
  Reader reader;
  const auto policy = Harness::Policy("sinks:sink_tokens=4,window_tokens=20");
  reader.Start(harness, {"a", Prompt(300), policy, Greedy(40)});
  reader.ReadToEnd();
  EXPECT_EQ(reader.ids, Expected(policy, Prompt(300), 40));
  ASSERT_FALSE(reader.updates.empty());
  uint64_t evicted = 0;
  for (const auto& update : reader.updates) {
    for (const auto& range : update.evicted) evicted += range.size();
  }
  EXPECT_EQ(evicted, 340u - (4 + 20 + 1));
  EXPECT_EQ(reader.updates.back().text_position, 340u);
  EXPECT_EQ(reader.updates.back().visible_tokens, 25u);
  EXPECT_EQ(reader.updates.back().sink_tokens, 4u);
  EXPECT_EQ(reader.finished->usage.evicted_tokens, evicted);
}

TEST(Generation, FullEndsAtItsCapacity) {
  Harness harness;
  Reader reader;
  reader.Start(harness, {"a", Prompt(20), Harness::Policy("full:max_tokens=32"),
                         Greedy(100)});
  reader.ReadToEnd();
  EXPECT_EQ(reader.finished->reason, FinishReason::kCapacity);
  EXPECT_EQ(reader.ids.size(), 12u);
  EXPECT_EQ(reader.finished->usage.text_position, 32u);
}

TEST(Generation, FullMayEndInAnErrorInstead) {
  Harness harness;
  Reader reader;
  reader.Start(harness, {"a", Prompt(20),
                         Harness::Policy("full:max_tokens=32,on_full=error"),
                         Greedy(100)});
  reader.ReadToEnd();
  EXPECT_EQ(reader.finished->reason, FinishReason::kError);
  EXPECT_TRUE(
      errors::HasReason(reader.finished->error, errors::Reason::kCacheFull));
}

TEST(Generation, PromptThatDoesNotFitIsRefusedBeforeItIsRead) {
  Harness harness;
  Reader reader;
  reader.Start(harness, {"a", Prompt(33), Harness::Policy("full:max_tokens=32"),
                         Greedy(1)});
  const absl::Status& status = reader.outcome.Wait();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_TRUE(errors::HasReason(status, errors::Reason::kCacheFull));
  EXPECT_EQ(errors::DetailsOf(status).metadata.at("limit"), "32");
  EXPECT_EQ(harness.engine.stats().steps, 0u);
}

TEST(Generation, CancelGivesTheMemoryBack) {
  Harness harness;
  Reader reader;
  auto options = Greedy(1);
  options.stopping.max_tokens.reset();
  reader.Start(harness, {"a", Prompt(5),
                         Harness::Policy("window:window_tokens=50"), options});
  ASSERT_TRUE(reader.outcome.Wait().ok());
  reader.generation->Cancel();
  reader.generation->Cancel();
  const cache::CacheManager::Stats cache = harness.CacheAtRest();
  EXPECT_EQ(cache.sequences, 0);
  EXPECT_EQ(cache.reserved_blocks, 0);
  EXPECT_EQ(cache.used_blocks, 0);
  reader.generation.reset();
  EXPECT_EQ(harness.active.count(), 0);
}

TEST(Generation, DrainFinishesIt) {
  Harness harness;
  Reader reader;
  auto options = Greedy(1);
  options.stopping.max_tokens.reset();
  reader.Start(harness, {"a", Prompt(5),
                         Harness::Policy("window:window_tokens=50"), options});
  ASSERT_TRUE(reader.outcome.Wait().ok());
  harness.active.DrainAll();
  reader.ReadToEnd();
  EXPECT_EQ(reader.finished->reason, FinishReason::kDrained);
}

TEST(Generation, ReaderThatStopsPausesItAndLosesNothing) {
  Harness harness;
  harness.deps.log.max_unread_events = 4;
  harness.deps.log.max_unread_bytes = 200;
  Reader reader;
  const auto policy = Harness::Policy("window:window_tokens=50");
  reader.Start(harness, {"a", Prompt(5), policy, Greedy(500)});
  ASSERT_TRUE(reader.outcome.Wait().ok());
  // Nobody reads: the engine comes to rest long before 500 tokens.
  while (true) {
    const uint64_t steps = harness.engine.stats().steps;
    harness.Do([] {});
    harness.Do([] {});
    if (reader.generation->log().Full() &&
        harness.engine.stats().steps == steps) {
      break;
    }
  }
  EXPECT_LT(harness.engine.stats().steps, 400u);
  reader.ReadToEnd();
  EXPECT_EQ(reader.ids, Expected(policy, Prompt(5), 500));
}

TEST(Generation, StripsWhatWasNotAskedForAndTellsMetricsAll) {
  Harness harness;
  absl::Mutex mutex;
  size_t told = 0;
  harness.deps.on_event = [&](const std::string& id, absl::string_view policy,
                              const session::EventBody& event) {
    EXPECT_EQ(id, "a");
    EXPECT_EQ(policy, "full");
    const auto* output = std::get_if<session::Output>(&event);
    absl::MutexLock lock(&mutex);
    if (output != nullptr) told += output->token_ids.size();
  };
  auto options = Greedy(10);
  options.response.token_ids = false;
  Reader reader;
  reader.Start(harness, {"a", Prompt(5), Harness::Policy("full:max_tokens=50"),
                         options});
  reader.ReadToEnd();
  EXPECT_TRUE(reader.ids.empty());
  absl::MutexLock lock(&mutex);
  EXPECT_EQ(told, 10u);
}

TEST(Generation, NonfiniteLogitsEndItWithATypedError) {
  testing::FakeModelHooks hooks;
  hooks.edit_logits = [](int64_t position, int32_t, absl::Span<float> logits) {
    if (position == 7) logits[3] = std::nanf("");
  };
  Harness harness(200, {}, &hooks);
  Reader reader;
  reader.Start(harness, {"a", Prompt(5), Harness::Policy("full:max_tokens=50"),
                         Greedy(10)});
  reader.ReadToEnd();
  EXPECT_EQ(reader.finished->reason, FinishReason::kError);
  EXPECT_TRUE(absl::IsInternal(reader.finished->error));
  EXPECT_TRUE(errors::HasReason(reader.finished->error,
                                errors::Reason::kNonfiniteLogits));
  EXPECT_EQ(reader.ids.size(), 3u);
}

TEST(Generation, FailedStepEndsItWithADeviceError) {
  testing::FakeModelHooks hooks;
  hooks.before = [](uint64_t call, const backends::Batch&) {
    return call == 3 ? absl::InternalError("gone") : absl::OkStatus();
  };
  Harness harness(200, {}, &hooks);
  Reader reader;
  reader.Start(harness, {"a", Prompt(5), Harness::Policy("full:max_tokens=50"),
                         Greedy(10)});
  reader.ReadToEnd();
  EXPECT_TRUE(
      errors::HasReason(reader.finished->error, errors::Reason::kDeviceError));
}

}  // namespace
}  // namespace millrace::oneshot
