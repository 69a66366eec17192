// Speculation through the engine: clients see what they would see without, in
// fewer steps. The fake model's rows depend on all that they see, so a guess
// that left anything behind would change what is written ever after.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "services/engine/engine.h"
#include "services/engine/ngram_draft.h"
#include "tests/services/engine/engine_harness.h"
#include "tests/services/engine/tiny_model_harness.h"
#include "tests/testing/fake_model.h"
#include "tests/testing/named_policy.h"

namespace millrace::engine {
namespace {

using testing::Force;

// Writes 10 11 .. 16 10 11 .., but for every `chance`-th token: that one
// depends on what its row sees.
testing::FakeModelHooks Circling(int chance) {
  return {.before = {},
          .edit_logits = [chance](int64_t position, int32_t,
                                  absl::Span<float> logits) {
            if (position % chance != 0) Force(10 + position % 7, logits);
          }};
}

constexpr int kNever = 1 << 30;

struct Result {
  std::vector<int32_t> written;
  std::vector<std::pair<int64_t, int64_t>> rows;
  int64_t earliest_cut = 0;
  uint64_t steps = 0;
  SpeculationCounts counts;
};

struct Case {
  std::shared_ptr<const cache::CachePolicy> policy = Full();
  int chance = kNever;
  int prompt_tokens = 30;
  Steps steps = Steps::kAlone;
  std::function<void(Writer&)> after_token = {};
};

// Until the last token is computed, too.
void WaitUntilRead(EngineHarness& harness, Writer& writer) {
  for (int64_t pending = 1; pending > 0;) {
    harness.Do([&] { pending = writer.sequence->pending_tokens(); });
  }
}

Result WriteWith(Speculation speculation, const Case& test, int count = 300) {
  EngineHarness harness(test.steps, {}, 20'000, Circling(test.chance));
  Writer writer;
  Result result;
  harness.Do([&] {
    writer.after_token = test.after_token;
    writer.Open(&harness.engine, test.policy, /*rollback_tokens=*/5);
    writer.sequence->SetSpeculation(speculation);
    writer.Read(Text(3, test.prompt_tokens));
    writer.Write(count);
  });
  writer.WaitUntilDone();
  WaitUntilRead(harness, writer);
  harness.Do([&] {
    result.earliest_cut = writer.sequence->EarliestCut();
    result.counts = writer.sequence->speculation_counts();
  });
  harness.engine.Stop();
  result.written = writer.written;
  result.rows = writer.rows;
  result.steps = harness.engine.stats().steps;
  return result;
}

// What is evicted before a step stays until the next one, for all of its
// tokens: cuts reach as far back, or a few tokens further.
void ExpectTheSame(const Result& plain, const Result& guessed) {
  EXPECT_EQ(guessed.written, plain.written);
  EXPECT_EQ(guessed.rows, plain.rows);
  EXPECT_LE(guessed.earliest_cut, plain.earliest_cut);
  EXPECT_GE(guessed.earliest_cut, plain.earliest_cut - NgramDraft::kMaxTokens);
}

TEST(SpeculationTest, ATextThatRepeatsItselfTakesAFewSteps) {
  const Result plain = WriteWith(Speculation::kNone, {});
  const Result guessed = WriteWith(Speculation::kNgram, {});
  ExpectTheSame(plain, guessed);
  EXPECT_GT(plain.steps, 300u);
  EXPECT_LT(guessed.steps, 60u);
  EXPECT_GT(guessed.counts.accepted, 240u);
  EXPECT_EQ(plain.counts.drafted, 0u);
}

// Where the next step would be begun early, a guess still goes first.
TEST(SpeculationTest, ATextThatRepeatsItselfTakesAFewStepsOfAQueueToo) {
  const Result plain = WriteWith(Speculation::kNone, {.steps = Steps::kQueued});
  const Result guessed =
      WriteWith(Speculation::kNgram, {.steps = Steps::kQueued});
  ExpectTheSame(plain, guessed);
  EXPECT_GT(plain.steps, 300u);
  EXPECT_LT(guessed.steps, 60u);
}

TEST(SpeculationTest, GuessesLeaveNoTraceUnderAnyPolicyThatEvicts) {
  for (const std::string policy :
       {"full", "window:window_tokens=20",
        "sinks:sink_tokens=4,window_tokens=9",
        "sinks:sink_tokens=4,window_tokens=50",
        "shift:context_tokens=40,n_discard=10,n_keep=3"}) {
    for (const int chance : {3, 9, 20, 41}) {
      SCOPED_TRACE(policy + ", one in " + std::to_string(chance));
      Case test = {.policy = testing::NamedPolicy(policy), .chance = chance};
      const Result plain = WriteWith(Speculation::kNone, test);
      const Result guessed = WriteWith(Speculation::kNgram, test);
      ExpectTheSame(plain, guessed);
      test.steps = Steps::kQueued;
      ExpectTheSame(plain, WriteWith(Speculation::kNone, test));
      ExpectTheSame(plain, WriteWith(Speculation::kNgram, test));
      if (chance > 9) {
        EXPECT_GT(guessed.counts.accepted, 0u);
        EXPECT_LT(guessed.counts.accepted, guessed.counts.drafted);
      }
    }
  }
}

TEST(SpeculationTest, APolicyThatRecomputesDoesNotGuess) {
  const Case test = {.policy = testing::NamedPolicy(
                         "reprefill:window_tokens=20,rebuild_every=10")};
  EXPECT_EQ(WriteWith(Speculation::kNgram, test, 60).counts.drafted, 0u);
}

// A tiny transformer goes round in circles all by itself.
TEST(SpeculationTest, ATransformerWritesTheSame) {
  for (const std::string policy :
       {"full", "sinks:sink_tokens=4,window_tokens=28",
        "window:window_tokens=9", "tova:budget_tokens=40",
        "h2o:budget_tokens=40,recent_tokens=20"}) {
    SCOPED_TRACE(policy);
    std::vector<Writer> writers(2);
    SpeculationCounts counts;
    for (const bool guesses : {false, true}) {
      const auto harness = NewTinyModelHarness(
          {}, cache::KvDtype::kF16,
          {.max_decode_rows = 8, .prefill_chunk_tokens = 32});
      Writer& writer = writers[guesses];
      harness->Do([&] {
        writer.Open(&harness->engine, testing::NamedPolicy(policy));
        if (guesses) writer.sequence->SetSpeculation(Speculation::kNgram);
        writer.Read(Text(5, 40));
        writer.Write(300);
      });
      writer.WaitUntilDone();
      harness->Do([&] {
        counts = writer.sequence->speculation_counts();
        writer.Leave();
      });
    }
    EXPECT_EQ(writers[true].written, writers[false].written);
    const bool chooses = policy[0] == 't' || policy[0] == 'h';
    EXPECT_EQ(counts.accepted > 0, !chooses);
  }
}

// What a client may do between two tokens: a row that was guessed right is not
// handed over if the text went on otherwise.
TEST(SpeculationTest, ClientsMayDoWhatTheyLikeBetweenTwoTokens) {
  const auto at = [](size_t token, std::function<void(Writer&)> what) {
    return [token, what](Writer& writer) {
      if (writer.written.size() == token) what(writer);
    };
  };
  const std::vector<std::function<void(Writer&)>> actions = {
      [](Writer& writer) {
        writer.Read({40, 41, 42});
      },
      [](Writer& writer) {
        const int64_t length = writer.sequence->length();
        ASSERT_TRUE(writer.sequence->Truncate(length - 3).ok());
        writer.sequence->WantLogits(Logits::kLast);
      },
      [](Writer& writer) {
        const int64_t length = writer.sequence->length();
        ASSERT_TRUE(writer.sequence->Truncate(length - 1).ok());
        writer.Read({40});
      },
      [](Writer& writer) {
        writer.sequence->Clear();
        writer.Read({1, 2, 3});
      },
      [](Writer& writer) {
        writer.sequence->WantLogits(Logits::kNone);
        writer.sequence->WantLogits(Logits::kLast);
      },
  };
  for (size_t action = 0; action < actions.size(); ++action) {
    for (const size_t token : {100, 101, 102, 103, 104, 105, 106, 107}) {
      SCOPED_TRACE(::testing::Message()
                   << "action " << action << " after token " << token);
      const Case test = {.policy = Sinks(4, 40),
                         .chance = 97,
                         .after_token = at(token, actions[action])};
      const Result guessed = WriteWith(Speculation::kNgram, test, 200);
      const Result plain = WriteWith(Speculation::kNone, test, 200);
      EXPECT_EQ(guessed.written, plain.written);
      EXPECT_GT(guessed.counts.accepted, 0u);
    }
  }
}

TEST(SpeculationTest, ASequenceMayCloseAmongGuessedTokens) {
  EngineHarness harness({}, 20'000, Circling(kNever));
  Writer writer, later;
  absl::Notification left;
  harness.Do([&] {
    writer.after_token = [&](Writer& self) {
      if (self.written.size() < 99) return;
      self.Leave();
      left.Notify();
    };
    writer.Open(&harness.engine, Full());
    writer.sequence->SetSpeculation(Speculation::kNgram);
    writer.Read({1, 2, 3});
    writer.Write(1000);
  });
  left.WaitForNotification();
  harness.Do([&] {
    later.Open(&harness.engine, Full());
    later.Read({1, 2, 3});
    later.Write(20);
  });
  later.WaitUntilDone();
  EXPECT_EQ(writer.written.size(), 99u);
  EXPECT_EQ(later.written.size(), 20u);
}

TEST(SpeculationTest, APausedSequenceHearsOfNoGuess) {
  EngineHarness harness({}, 20'000, Circling(kNever));
  Writer writer;
  absl::Notification paused;
  harness.Do([&] {
    writer.after_token = [&](Writer& self) {
      if (self.written.size() != 100) return;
      self.sequence->SetPaused(true);
      paused.Notify();
    };
    writer.Open(&harness.engine, Full());
    writer.sequence->SetSpeculation(Speculation::kNgram);
    writer.Read({1, 2, 3});
    writer.Write(200);
  });
  paused.WaitForNotification();
  harness.Do([&] {
    EXPECT_EQ(writer.written.size(), 100u);
    writer.sequence->SetPaused(false);
  });
  writer.WaitUntilDone();
  harness.engine.Stop();
  for (size_t i = 0; i < writer.written.size(); ++i) {
    ASSERT_EQ(writer.written[i], 10 + static_cast<int32_t>(i + 2) % 7);
  }
}

TEST(SpeculationTest, NobodyWaitsForTheGuessesOfOthers) {
  EngineHarness harness({}, 20'000, Circling(kNever));
  Writer a, b;
  harness.Do([&] {
    for (Writer* writer : {&a, &b}) {
      writer->Open(&harness.engine, Full());
      writer->sequence->SetSpeculation(Speculation::kNgram);
      writer->Read({1, 2, 3});
      writer->Write(200);
    }
  });
  a.WaitUntilDone();
  b.WaitUntilDone();
  harness.engine.Stop();
  for (const StepTrace& trace : harness.traces) {
    if (trace.rows.size() > 1) {
      EXPECT_EQ(trace.draft_rows, 0);
    }
  }
}

TEST(SpeculationTest, ATextThatIsNearlyFullGuessesNoFurther) {
  const Case test = {.policy = Full(/*max_tokens=*/135)};
  const Result guessed = WriteWith(Speculation::kNgram, test, 105);
  ExpectTheSame(WriteWith(Speculation::kNone, test, 105), guessed);
  EXPECT_EQ(guessed.written.size(), 105u);
}

TEST(SpeculationTest, TracesCountGuessesApart) {
  EngineHarness harness({}, 20'000, Circling(kNever));
  Writer writer;
  harness.Do([&] {
    writer.Open(&harness.engine, Full());
    writer.sequence->SetSpeculation(Speculation::kNgram);
    writer.Read({1, 2, 3});
    writer.Write(300);
  });
  writer.WaitUntilDone();
  WaitUntilRead(harness, writer);
  harness.engine.Stop();
  int certain = 0, accepted = 0, drafted = 0;
  for (const StepTrace& trace : harness.traces) {
    certain += trace.decode_rows;
    accepted += trace.accepted_before;
    drafted += trace.draft_rows;
  }
  const EngineStats stats = harness.engine.stats();
  EXPECT_EQ(stats.speculation.accepted, static_cast<uint64_t>(accepted));
  EXPECT_EQ(stats.speculation.drafted, static_cast<uint64_t>(drafted));
  // The first token comes of the prompt; the last one is computed and unused.
  EXPECT_NEAR(certain + accepted, 299, 1);
}

}  // namespace
}  // namespace millrace::engine
