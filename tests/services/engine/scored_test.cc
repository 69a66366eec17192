// Sequences under policies that choose by attention: what the engine tells the
// cache of inputs, what it holds back, and where it cuts.

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "cache/policies/h2o_policy.h"
#include "cache/policies/snapkv_policy.h"
#include "cache/policies/tova_policy.h"
#include "services/engine/engine.h"
#include "services/engine/sampling/choose.h"
#include "tests/services/engine/engine_harness.h"
#include "tests/services/engine/tiny_model_harness.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/scored_oracle.h"

namespace millrace::engine {
namespace {

using cache::KvDtype;
using testing::ScoredDefinition;
using Choice = ScoredDefinition::Choice;

constexpr int64_t kTrained = 8192;

std::shared_ptr<const cache::CachePolicy> PolicyOf(const ScoredDefinition& d) {
  const cache::ScoredOptions options{.budget_tokens = d.budget,
                                     .stride = d.stride,
                                     .sink_tokens = d.kept,
                                     .recent_tokens = d.recent};
  switch (d.choice) {
    case Choice::kTova:
      return *cache::NewTovaPolicy(options, kTrained);
    case Choice::kH2o:
      return *cache::NewH2oPolicy({.scored = options, .decay = d.decay},
                                  kTrained);
    case Choice::kSnapkv:
      return *cache::NewSnapkvPolicy({.scored = options, .pool_kernel = d.pool},
                                     kTrained);
  }
  return nullptr;
}

constexpr ScoredDefinition kTova{
    .choice = Choice::kTova, .budget = 24, .stride = 7, .recent = 2};
constexpr ScoredDefinition kH2o{.choice = Choice::kH2o,
                                .budget = 24,
                                .stride = 7,
                                .recent = 8,
                                .decay = 0.9};
constexpr ScoredDefinition kSnapkv{.choice = Choice::kSnapkv,
                                   .budget = 24,
                                   .stride = 30,
                                   .recent = 8,
                                   .pool = 3};

// What was read at once, or written. What was read to its end is an input; one
// that was cut in its midst goes on with the next.
struct Part {
  std::vector<int32_t> ids;
  bool written = false;
  bool cut = false;
};

// Owns a sequence that reads, and writes what it is told to or what the model
// says. All but WaitUntilDone is for the engine thread. Keeps the logits of the
// last row before each written token, by text position.
class Scribe : public SequenceClient {
 public:
  void Open(Engine* engine, const ScoredDefinition& definition) {
    sequence = *engine->Open({.policy = PolicyOf(definition),
                              .max_chunk_tokens = 1,
                              .rollback_tokens = 4},
                             this);
  }
  void Write(int64_t count) { Begin(count, {}); }
  void Write(const std::vector<int32_t>& ids) {
    Begin(std::ssize(ids), {ids.begin(), ids.end()});
  }
  // Asks for the logits of the last row, and picks nothing.
  void Look() {
    Begin(1, {});
    picks_ = false;
  }
  void WaitUntilDone() { done_->WaitForNotification(); }

  void OnRows(int64_t first, int64_t count,
              absl::Span<const float> row) override {
    if (row.empty() || left_ == 0) return;
    logits[first + count - 1] = {row.begin(), row.end()};
    if (picks_) Pick(row);
    if (--left_ > 0) return;
    sequence->WantLogits(Logits::kNone);
    done_->Notify();
  }
  void OnError(const absl::Status& status) override {
    error = status;
    if (std::exchange(left_, 0) > 0) done_->Notify();
  }

  std::unique_ptr<Sequence> sequence;
  std::vector<int32_t> written;
  std::map<int64_t, std::vector<float>> logits;
  absl::Status error;

 private:
  void Begin(int64_t count, std::deque<int32_t> told) {
    left_ = count;
    picks_ = true;
    told_ = std::move(told);
    done_ = std::make_unique<absl::Notification>();
    sequence->WantLogits(Logits::kLast);
  }

  void Pick(absl::Span<const float> row) {
    int32_t id = Greedy(row);
    if (!told_.empty()) {
      id = told_.front();
      told_.pop_front();
    }
    written.push_back(id);
    sequence->Append({id});
  }

  std::unique_ptr<absl::Notification> done_;
  int64_t left_ = 0;
  bool picks_ = true;
  std::deque<int32_t> told_;
};

class ScoredEngineTest : public ::testing::TestWithParam<ScoredDefinition> {
 protected:
  static testing::TinyLlamaOptions Model() {
    return {.num_layers = 3, .vocabulary_size = 320};
  }
  static std::unique_ptr<EngineHarness> NewHarness(int chunk = 16) {
    return NewTinyModelHarness(
        Model(), KvDtype::kF32,
        {.max_decode_rows = 8, .prefill_chunk_tokens = chunk});
  }

  // Runs `task` on the engine thread and waits for what it makes be written.
  static void Run(EngineHarness& harness, Scribe& scribe,
                  const std::function<void()>& task) {
    harness.Do(task);
    scribe.WaitUntilDone();
  }

  // Reads and writes the parts in a new sequence, then writes `count` tokens
  // more; the logits from which these were picked.
  static std::vector<std::vector<float>> Replay(EngineHarness& harness,
                                                const std::vector<Part>& parts,
                                                int64_t count) {
    Scribe scribe;
    harness.Do([&] { scribe.Open(&harness.engine, GetParam()); });
    for (const Part& part : parts) {
      if (part.written) {
        Run(harness, scribe, [&] { scribe.Write(part.ids); });
        continue;
      }
      harness.Do([&] { scribe.sequence->Append(part.ids); });
      if (part.cut) continue;
      Run(harness, scribe, [&] { scribe.Look(); });
    }
    scribe.logits.clear();
    Run(harness, scribe, [&] { scribe.Write(count); });
    EXPECT_TRUE(scribe.error.ok()) << scribe.error;
    harness.Do([&] { scribe.sequence.reset(); });
    std::vector<std::vector<float>> rows;
    for (auto& [position, row] : scribe.logits) rows.push_back(std::move(row));
    return rows;
  }
};

// Long and short inputs, some shorter than the rows that vote, between what is
// written, whose last token waits for the next input.
TEST_P(ScoredEngineTest, TurnsAreWhatTheDefinitionSays) {
  const auto file = testing::OpenTinyLlama(Model());
  for (const int chunk : {1, 16, 64}) {
    const auto harness = NewHarness(chunk);
    Scribe scribe;
    harness->Do([&] { scribe.Open(&harness->engine, GetParam()); });
    std::vector<int32_t> text;
    std::vector<testing::Input> inputs;
    uint64_t seed = 0;
    for (const auto& [read, write] :
         {std::pair{70, 9}, {3, 5}, {30, 1}, {1, 2}, {5, 12}, {20, 3}}) {
      const std::vector<int32_t> in = Text(++seed, read);
      const std::vector<int32_t> out = Text(++seed, write);
      inputs.push_back({std::ssize(text), std::ssize(text) + read});
      text.insert(text.end(), in.begin(), in.end());
      text.insert(text.end(), out.begin(), out.end());
      Run(*harness, scribe, [&] {
        scribe.sequence->Append(in);
        scribe.Write(out);
      });
      ASSERT_TRUE(scribe.error.ok()) << scribe.error;
    }
    harness->Do([&] { scribe.sequence.reset(); });
    const testing::ScoredReading exact =
        testing::ScoredOracle(*file, GetParam()).Read(text, inputs);
    ASSERT_GT(exact.margin(), 2e-5);
    EXPECT_EQ(scribe.logits.size(), 32u);
    for (const auto& [position, row] : scribe.logits) {
      EXPECT_LE(testing::MaxDifference({row}, {exact.logits[position]}), 1e-3)
          << position << " in chunks of " << chunk;
    }
  }
}

TEST_P(ScoredEngineTest, WhatWasCutOffWasNeverRead) {
  const auto harness = NewHarness();
  Scribe scribe;
  harness->Do([&] { scribe.Open(&harness->engine, GetParam()); });
  std::vector<Part> parts;  // of the text as it is now
  testing::RandomValues random(3);
  int cuts = 0;
  for (int round = 0; round < 80; ++round) {
    if (round % 20 == 0) {  // short texts too
      harness->Do([&] { scribe.sequence->Clear(); });
      parts.clear();
    }
    const std::vector<int32_t> in =
        Text(round, static_cast<int64_t>(1 + random.Bits() % 40));
    const auto count = static_cast<int64_t>(1 + random.Bits() % 6);
    parts.push_back({.ids = in});
    scribe.logits.clear();
    scribe.written.clear();
    Run(*harness, scribe, [&] {
      scribe.sequence->Append(in);
      scribe.Write(count);
    });
    ASSERT_TRUE(scribe.error.ok()) << scribe.error;
    std::vector<std::vector<float>> rows;
    for (const auto& [position, row] : scribe.logits) rows.push_back(row);
    ASSERT_TRUE(rows == Replay(*harness, parts, count)) << "round " << round;
    parts.push_back({.ids = scribe.written, .written = true});

    harness->Do([&] {
      Sequence& sequence = *scribe.sequence;
      const int64_t earliest = sequence.EarliestCut();
      const int64_t length =
          sequence.length() -
          static_cast<int64_t>(random.Bits() %
                               (sequence.length() - earliest + 1));
      ASSERT_TRUE(sequence.Truncate(length).ok());
      int64_t more = length;
      std::vector<Part> rest;
      for (Part& part : parts) {
        if (more == 0) break;
        if (std::ssize(part.ids) > more) {
          part.ids.resize(more);
          part.cut = true;
          ++cuts;
        }
        more -= std::ssize(part.ids);
        rest.push_back(std::move(part));
      }
      parts = std::move(rest);
    });
  }
  EXPECT_GE(cuts, 20);
  harness->Do([&] { scribe.sequence.reset(); });
}

TEST_P(ScoredEngineTest, ACutBeforeTheLastChoiceIsRefusedWithOneThatWorks) {
  const auto harness = NewHarness();
  Scribe scribe;
  harness->Do([&] { scribe.Open(&harness->engine, GetParam()); });
  Run(*harness, scribe, [&] {
    scribe.sequence->Append(Text(1, 100));
    scribe.Write(5);
  });
  harness->Do([&] {
    Sequence& sequence = *scribe.sequence;
    const int64_t earliest = sequence.EarliestCut();
    EXPECT_GT(earliest, 80);
    const absl::Status refused = sequence.Truncate(earliest - 1);
    EXPECT_EQ(refused.code(), absl::StatusCode::kOutOfRange);
    EXPECT_NE(refused.message().find("from " + std::to_string(earliest)),
              std::string::npos)
        << refused;
    EXPECT_EQ(sequence.length(), 105);
    EXPECT_TRUE(sequence.Truncate(earliest).ok());
    EXPECT_EQ(sequence.length(), earliest);
    sequence.WantLogits(Logits::kNone);
  });
  Run(*harness, scribe, [&] { scribe.Write(2); });
  EXPECT_TRUE(scribe.error.ok()) << scribe.error;
  harness->Do([&] { scribe.sequence.reset(); });
}

// A turn goes on from the last row, wherever that is: at a stride's boundary,
// or at the end of an input that was read to the last token.
TEST_P(ScoredEngineTest, LastLogitsAreComputedOnceMoreAtAnyLength) {
  const auto harness = NewHarness();
  for (int64_t length = 60; length < 75; ++length) {
    Scribe scribe;
    const std::vector<Part> parts = {{.ids = Text(2, length)}};
    harness->Do([&] { scribe.Open(&harness->engine, GetParam()); });
    Run(*harness, scribe, [&] {
      scribe.sequence->Append(parts[0].ids);
      scribe.Look();
    });
    Run(*harness, scribe, [&] {
      EXPECT_EQ(scribe.sequence->pending_tokens(), 0);
      scribe.logits.clear();
      scribe.Write(3);
    });
    std::vector<std::vector<float>> rows;
    for (const auto& [position, row] : scribe.logits) rows.push_back(row);
    EXPECT_TRUE(rows == Replay(*harness, parts, 3)) << length;
    harness->Do([&] { scribe.sequence.reset(); });
  }
}

TEST_P(ScoredEngineTest, ALongPromptIsReadInBoundedMemory) {
  const ScoredDefinition& d = GetParam();
  const auto harness = NewHarness(64);
  Scribe scribe;
  harness->Do([&] { scribe.Open(&harness->engine, d); });
  const int64_t tokens = 20 * d.budget;
  Run(*harness, scribe, [&] {
    scribe.sequence->Append(Text(1, tokens));
    scribe.Look();
  });
  harness->Do([&] {
    EXPECT_EQ(scribe.sequence->computed_tokens(), tokens);
    EXPECT_LE(scribe.sequence->peak_resident_tokens(), d.budget + d.stride);
    EXPECT_GE(scribe.sequence->Held().front().end, d.kept);
    scribe.sequence.reset();
  });
  harness->engine.Stop();
  EXPECT_EQ(harness->engine.stats().cache.used_blocks, 0);
}

std::string NameOf(const ::testing::TestParamInfo<ScoredDefinition>& info) {
  switch (info.param.choice) {
    case Choice::kTova:
      return "Tova";
    case Choice::kH2o:
      return "H2o";
    case Choice::kSnapkv:
      return "Snapkv";
  }
  return "";
}

INSTANTIATE_TEST_SUITE_P(Policies, ScoredEngineTest,
                         ::testing::Values(kTova, kH2o, kSnapkv), NameOf);

class SnapkvEngineTest : public ScoredEngineTest {};

TEST_P(SnapkvEngineTest, TheEndOfAnInputWaitsUntilItIsKnown) {
  const auto harness = NewHarness();
  Scribe scribe;
  harness->Do([&] {
    scribe.Open(&harness->engine, GetParam());
    scribe.sequence->Append(Text(1, 50));
    EXPECT_EQ(scribe.sequence->readable_tokens(), 42);  // 50 less 8 that vote
  });
  while (true) {
    int64_t readable = 0;
    harness->Do([&] { readable = scribe.sequence->readable_tokens(); });
    if (readable == 0) break;
  }
  Run(*harness, scribe, [&] {
    EXPECT_EQ(scribe.sequence->computed_tokens(), 42);
    EXPECT_EQ(scribe.sequence->pending_tokens(), 8);
    scribe.Look();
  });
  harness->Do([&] {
    EXPECT_EQ(scribe.sequence->computed_tokens(), 50);
    scribe.sequence.reset();
  });
}

// 24 are held behind an input, and 24 + 30 - 8 = 46 at most while text is
// written; then there is room for 8 that vote.
TEST_P(SnapkvEngineTest, ThereIsRoomToWriteAndToReadOnceMore) {
  const auto harness = NewHarness();
  Scribe scribe;
  harness->Do([&] { scribe.Open(&harness->engine, GetParam()); });
  for (int turn = 0; turn < 3; ++turn) {
    Run(*harness, scribe, [&] {
      scribe.sequence->Append(Text(1, 40));
      EXPECT_EQ(scribe.sequence->room_to_write(), 22);
      scribe.Write(22);
    });
    ASSERT_TRUE(scribe.error.ok()) << scribe.error;
    harness->Do([&] { EXPECT_EQ(scribe.sequence->room_to_write(), 0); });
  }
  // Whoever does not heed it is refused; the text goes on.
  Run(*harness, scribe, [&] { scribe.Write(2); });
  EXPECT_EQ(scribe.error.code(), absl::StatusCode::kFailedPrecondition)
      << scribe.error;
  scribe.error = absl::OkStatus();
  Run(*harness, scribe, [&] {
    scribe.sequence->Append(Text(9, 4));
    scribe.Write(3);
  });
  EXPECT_TRUE(scribe.error.ok()) << scribe.error;
  harness->Do([&] { scribe.sequence.reset(); });
}

INSTANTIATE_TEST_SUITE_P(Snapkv, SnapkvEngineTest, ::testing::Values(kSnapkv),
                         NameOf);

}  // namespace
}  // namespace millrace::engine
