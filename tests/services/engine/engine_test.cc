#include "services/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/services/engine/engine_harness.h"
#include "tests/testing/fake_model.h"

namespace millrace::engine {
namespace {

using testing::FakeOracle;

// Opens, reads and writes alone, on an engine of its own.
std::vector<int32_t> WriteAlone(
    Steps steps, const EngineOptions& options,
    std::shared_ptr<const cache::CachePolicy> policy,
    absl::Span<const int32_t> prompt, int count) {
  EngineHarness harness(steps, options);
  Writer writer;
  harness.Do([&] {
    writer.Open(&harness.engine, policy);
    writer.Read(prompt);
    writer.Write(count);
  });
  writer.WaitUntilDone();
  harness.engine.Stop();
  return writer.written;
}

class EngineTest : public ::testing::TestWithParam<Steps> {};

std::string NameOf(const ::testing::TestParamInfo<Steps>& steps) {
  return steps.param == Steps::kQueued ? "Queued" : "Alone";
}

INSTANTIATE_TEST_SUITE_P(Steps, EngineTest,
                         ::testing::Values(Steps::kAlone, Steps::kQueued),
                         NameOf);

TEST_P(EngineTest, WritesWhatTheOracleSays) {
  const std::vector<int32_t> prompt = Text(1, 100);
  EXPECT_EQ(WriteAlone(GetParam(), {}, Full(), prompt, 50),
            Oracle(Full(), prompt, 50));
}

TEST_P(EngineTest, WritesTheSameWhateverTheChunks) {
  const std::vector<int32_t> prompt = Text(2, 300);
  const std::vector<int32_t> expected = Oracle(Sinks(4, 30), prompt, 40);
  for (const int chunk : {1, 7, 16, 64}) {
    EXPECT_EQ(WriteAlone(GetParam(), {.prefill_chunk_tokens = chunk},
                         Sinks(4, 30), prompt, 40),
              expected)
        << chunk;
  }
}

TEST_P(EngineTest, WritesForEverInBoundedMemory) {
  EngineHarness harness(GetParam());
  Writer writer;
  harness.Do([&] {
    writer.Open(&harness.engine, Sinks(4, 30));
    writer.Read({3});
    writer.Write(3000);
  });
  writer.WaitUntilDone();
  harness.engine.Stop();
  EXPECT_EQ(writer.written, Oracle(Sinks(4, 30), {3}, 3000));
  EXPECT_LE(writer.sequence->peak_resident_tokens(),
            4 + 30 + 1 + harness.engine.extra_rollback_tokens());
  EXPECT_LE(writer.sequence->peak_resident_tokens() * 16,
            writer.sequence->reserved_bytes());
}

TEST_P(EngineTest, ReadsWhatIsAppendedWhileItWrites) {
  const std::vector<int32_t> prompt = Text(3, 20), aside = Text(4, 150);
  EngineHarness harness(GetParam());
  Writer writer;
  writer.after_token = [&](Writer& w) {
    if (w.written.size() == 10) w.Read(aside);
  };
  harness.Do([&] {
    writer.Open(&harness.engine, Sinks(2, 40));
    writer.Read(prompt);
    writer.Write(30);
  });
  writer.WaitUntilDone();
  harness.engine.Stop();

  FakeOracle oracle({}, Sinks(2, 40));
  oracle.Append(prompt);
  std::vector<int32_t> expected = oracle.DecodeGreedily(10);
  oracle.Append(aside);
  for (const int32_t id : oracle.DecodeGreedily(20)) expected.push_back(id);
  EXPECT_EQ(writer.written, expected);
}

TEST_P(EngineTest, ReportsEachTokenOnceInOrder) {
  EngineHarness harness(GetParam(), {.prefill_chunk_tokens = 16});
  Writer writer;
  harness.Do([&] {
    writer.Open(&harness.engine, Full());
    writer.Read(Text(5, 40));
    writer.Write(3);
  });
  writer.WaitUntilDone();
  harness.Do([] {});
  harness.engine.Stop();
  const std::vector<std::pair<int64_t, int64_t>> expected = {
      {0, 16}, {16, 16}, {32, 8}, {40, 1}, {41, 1}, {42, 1}};
  EXPECT_TRUE(writer.rows == expected ||
              writer.rows == std::vector(expected.begin(), expected.end() - 1));
}

TEST_P(EngineTest, GivesTheLogitsOfEveryRowWhereAllAreWanted) {
  const std::vector<int32_t> text = Text(6, 150);
  EngineHarness harness(GetParam());
  Scorer scorer;
  harness.Do([&] {
    scorer.sequence = *harness.engine.Open({.policy = Sinks(4, 30)}, &scorer);
    scorer.sequence->WantLogits(Logits::kAll);
    scorer.sequence->Append(text);
  });
  scorer.done.WaitForNotification();
  harness.engine.Stop();

  FakeOracle oracle({}, Sinks(4, 30));
  oracle.Append(text);
  std::vector<float> expected;
  for (int64_t t = 0; t < 150; ++t) {
    const std::vector<float> row = oracle.Logits(t);
    expected.insert(expected.end(), row.begin(), row.end());
  }
  EXPECT_EQ(scorer.all, expected);
}

TEST_P(EngineTest, LeavesAPausedSequenceOut) {
  EngineHarness harness(GetParam());
  Writer paused, other;
  harness.Do([&] {
    paused.Open(&harness.engine, Full());
    other.Open(&harness.engine, Full());
    paused.Read(Text(1, 10));
    paused.Write(5);
    paused.sequence->SetPaused(true);
    other.Read(Text(2, 10));
    other.Write(20);
  });
  other.WaitUntilDone();
  harness.Do([&] {
    EXPECT_EQ(paused.sequence->computed_tokens(), 0);
    EXPECT_EQ(paused.sequence->pending_tokens(), 10);
    paused.sequence->SetPaused(false);
  });
  paused.WaitUntilDone();
  harness.engine.Stop();
  EXPECT_EQ(paused.written, Oracle(Full(), Text(1, 10), 5));
}

// Cuts.

class CutTest : public EngineTest {
 protected:
  // Reads a text of `length` tokens to its end.
  void Read(std::shared_ptr<const cache::CachePolicy> policy, int64_t rollback,
            int64_t length) {
    text_ = Text(9, length);
    harness_.Do([&] {
      writer_.Open(&harness_.engine, policy, rollback);
      writer_.Read(text_);
    });
    WaitUntilRead();
  }

  void WaitUntilRead() {
    int64_t pending = 1;
    while (pending > 0) {
      harness_.Do([&] { pending = writer_.sequence->pending_tokens(); });
    }
  }

  absl::Status Cut(int64_t length) {
    absl::Status status;
    harness_.Do([&] { status = writer_.sequence->Truncate(length); });
    return status;
  }

  int64_t EarliestCut() {
    int64_t earliest = -1;
    harness_.Do([&] { earliest = writer_.sequence->EarliestCut(); });
    return earliest;
  }

  std::vector<int32_t> Write(int count) {
    writer_.written.clear();
    harness_.Do([&] { writer_.Write(count); });
    writer_.WaitUntilDone();
    return writer_.written;
  }

  // That may be begun for nothing.
  int64_t EarlyRows() const {
    return harness_.engine.extra_rollback_tokens() - 1;
  }

  std::vector<int32_t> First(int64_t length) const {
    return {text_.begin(), text_.begin() + length};
  }

  std::vector<int32_t> text_;
  EngineHarness harness_{GetParam()};
  Writer writer_;
};

INSTANTIATE_TEST_SUITE_P(Steps, CutTest,
                         ::testing::Values(Steps::kAlone, Steps::kQueued),
                         NameOf);

TEST_P(CutTest, GoesOnAsIfTheRestHadNeverBeen) {
  Read(Full(), 0, 200);
  for (const int64_t length : {150, 149, 96, 33, 1}) {
    ASSERT_TRUE(Cut(length).ok());
    EXPECT_EQ(Write(1), Oracle(Full(), First(length), 1)) << length;
    ASSERT_TRUE(Cut(length).ok());
  }
  EXPECT_EQ(Write(60), Oracle(Full(), First(1), 60));
}

TEST_P(CutTest, ReachesAsFarAsTheRollbackThatWasAskedFor) {
  Read(Sinks(4, 30), 20, 500);
  EXPECT_LE(EarliestCut(), 480);
  ASSERT_TRUE(Cut(480).ok());
  EXPECT_EQ(Write(60), Oracle(Sinks(4, 30), First(480), 60));
}

TEST_P(CutTest, ReachesExactlyAsFarWhenTokensCameOneByOne) {
  Read(Sinks(4, 30), 20, 50);
  const std::vector<int32_t> written = Write(100);
  WaitUntilRead();
  EXPECT_EQ(EarliestCut(), 150 - 20 - EarlyRows());
  ASSERT_TRUE(Cut(130).ok());
  const std::vector<int32_t> again = Write(20);
  EXPECT_EQ(again, std::vector<int32_t>(written.end() - 20, written.end()));
}

TEST_P(CutTest, WithoutRollbackTheLastTokenCanBeComputedOnceMore) {
  Read(Sinks(4, 30), 0, 50);
  const std::vector<int32_t> written = Write(100);
  WaitUntilRead();
  EXPECT_EQ(EarliestCut(), 150 - EarlyRows());
  std::vector<int32_t> all = text_;
  all.insert(all.end(), written.begin(), written.end());
  EXPECT_EQ(Write(40), Oracle(Sinks(4, 30), all, 40));
}

TEST_P(CutTest, GoesNoFurtherThanItSays) {
  Read(Sinks(4, 30), 20, 500);
  const int64_t earliest = EarliestCut();
  EXPECT_GT(earliest, 0);
  const absl::Status status = Cut(earliest - 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("cut a text of 500 tokens"));
  EXPECT_EQ(Cut(501).code(), absl::StatusCode::kOutOfRange);
  ASSERT_TRUE(Cut(earliest).ok());
  EXPECT_EQ(EarliestCut(), earliest);
  EXPECT_EQ(Write(60), Oracle(Sinks(4, 30), First(earliest), 60));
}

TEST_P(CutTest, GoesNoFurtherWhileTheLastTokenIsComputedOnceMore) {
  Read(Sinks(4, 30), 20, 500);
  harness_.Do([&] {
    Sequence& sequence = *writer_.sequence;
    const int64_t earliest = sequence.EarliestCut();
    ASSERT_TRUE(sequence.Truncate(earliest).ok());
    sequence.WantLogits(Logits::kLast);
    EXPECT_EQ(sequence.computed_tokens(), earliest - 1);
    EXPECT_EQ(sequence.pending_tokens(), 1);
    EXPECT_EQ(sequence.EarliestCut(), earliest);
    EXPECT_EQ(sequence.Truncate(earliest - 1).code(),
              absl::StatusCode::kOutOfRange);
  });
}

TEST_P(CutTest, TakesPendingTokensFirst) {
  Read(Full(), 0, 50);
  harness_.Do([&] {
    writer_.sequence->SetPaused(true);
    writer_.Read(Text(1, 30));
    EXPECT_EQ(writer_.sequence->length(), 80);
    EXPECT_TRUE(writer_.sequence->Truncate(60).ok());
    EXPECT_EQ(writer_.sequence->pending_tokens(), 10);
    EXPECT_EQ(writer_.sequence->computed_tokens(), 50);
    EXPECT_TRUE(writer_.sequence->Truncate(40).ok());
    EXPECT_EQ(writer_.sequence->pending_tokens(), 0);
    EXPECT_EQ(writer_.sequence->computed_tokens(), 40);
    writer_.sequence->SetPaused(false);
  });
  EXPECT_EQ(Write(5), Oracle(Full(), First(40), 5));
}

TEST_P(CutTest, ToNothingIsAnEmptyText) {
  Read(Full(), 0, 50);
  ASSERT_TRUE(Cut(0).ok());
  harness_.Do([&] {
    writer_.sequence->WantLogits(Logits::kLast);  // of nothing: nothing to do
    EXPECT_EQ(writer_.sequence->length(), 0);
    writer_.Read({7});
  });
  EXPECT_EQ(Write(5), Oracle(Full(), {7}, 5));
}

TEST_P(CutTest, ClearStartsANewTextInTheSameMemory) {
  Read(Sinks(4, 30), 0, 500);
  harness_.Do([&] {
    const int64_t reserved = writer_.sequence->reserved_bytes();
    writer_.sequence->Clear();
    EXPECT_EQ(writer_.sequence->length(), 0);
    EXPECT_EQ(writer_.sequence->resident_tokens(), 0);
    EXPECT_EQ(writer_.sequence->reserved_bytes(), reserved);
    writer_.Read(Text(1, 70));
  });
  EXPECT_EQ(Write(60), Oracle(Sinks(4, 30), Text(1, 70), 60));
}

TEST_P(CutTest, CutsAndTurnsInAnyOrderAreExact) {
  Read(Sinks(4, 30), 20, 100);
  FakeOracle oracle({}, Sinks(4, 30));
  oracle.Append(text_);
  for (uint64_t round = 0; round < 60; ++round) {
    const uint64_t dice = testing::Mix(round);
    const int count = 1 + static_cast<int>(dice % 30);
    ASSERT_EQ(Write(count), oracle.DecodeGreedily(count)) << round;
    if (dice >> 63) WaitUntilRead();
    const int64_t earliest = EarliestCut();
    const int64_t length = std::max<int64_t>(
        earliest, oracle.length() - static_cast<int64_t>(dice >> 40) % 22);
    ASSERT_TRUE(Cut(length).ok()) << round;
    oracle.Truncate(length);
  }
}

// Errors.

TEST_P(EngineTest, TellsThatThePolicyRefuses) {
  EngineHarness harness(GetParam());
  Writer writer, other;
  harness.Do([&] {
    writer.Open(&harness.engine, Full(10));
    other.Open(&harness.engine, Full());
    writer.Read(Text(1, 8));
    writer.Write(100);
    other.Read(Text(2, 8));
    other.Write(30);
  });
  writer.WaitUntilDone();
  other.WaitUntilDone();
  harness.engine.Stop();
  ASSERT_EQ(writer.errors.size(), 1u);
  EXPECT_EQ(writer.errors[0].code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(writer.sequence->computed_tokens(), 10);
  EXPECT_EQ(writer.sequence->pending_tokens(), 0);
  EXPECT_EQ(writer.written, Oracle(Full(), Text(1, 8), 3));
  EXPECT_EQ(other.written, Oracle(Full(), Text(2, 8), 30));
}

TEST_P(EngineTest, AFailedStepEndsThoseInItAndNobodyElse) {
  const auto fail_third = [](uint64_t call, const backends::Batch&) {
    return call == 3 ? absl::InternalError("forward: device lost")
                     : absl::OkStatus();
  };
  EngineHarness harness(GetParam(), {}, 2000,
                        {.before = fail_third, .edit_logits = {}});
  Writer a, b, later;
  harness.Do([&] {
    for (Writer* writer : {&a, &b}) {
      writer->Open(&harness.engine, Full());
      writer->Read({1, 2, 3});
      writer->Write(20);
    }
  });
  a.WaitUntilDone();
  b.WaitUntilDone();
  harness.Do([&] {
    for (Writer* writer : {&a, &b}) {
      ASSERT_EQ(writer->errors.size(), 1u);
      EXPECT_EQ(writer->errors[0], absl::InternalError("forward: device lost"));
      EXPECT_EQ(writer->written.size(), 2u);
      EXPECT_EQ(writer->sequence->pending_tokens(), 0);
    }
    EXPECT_EQ(harness.engine.stats().last_step,
              absl::InternalError("forward: device lost"));
    later.Open(&harness.engine, Full());
    later.Read({1, 2, 3});
    later.Write(20);
  });
  later.WaitUntilDone();
  harness.engine.Stop();
  EXPECT_EQ(harness.engine.stats().last_step, absl::OkStatus());
  EXPECT_EQ(later.written, Oracle(Full(), {1, 2, 3}, 20));
}

TEST_P(EngineTest, RefusesASequenceThatMemoryDoesNotHold) {
  EngineHarness harness(GetParam(), {}, /*num_blocks=*/10);
  Writer writer;
  harness.Do([&] {
    writer.Open(&harness.engine, Full(100));
    const auto second = harness.engine.Open({.policy = Full(100)}, &writer);
    EXPECT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
    writer.sequence.reset();
    EXPECT_TRUE(harness.engine.Open({.policy = Full(100)}, &writer).ok());
  });
}

// Clients that do as they like.

TEST_P(EngineTest, AClientMayCloseItsSequenceInAnyCall) {
  EngineHarness harness(GetParam(), {.prefill_chunk_tokens = 16});
  Writer writes, refused;
  writes.after_token = [](Writer& w) {
    if (w.written.size() == 3) w.sequence.reset();
  };
  class ClosesOnError : public Writer {
   public:
    void OnError(const absl::Status& status) override {
      sequence.reset();
      Writer::OnError(status);
    }
  } closes;
  harness.Do([&] {
    writes.Open(&harness.engine, Full());
    writes.Read(Text(1, 40));
    writes.Write(3);
    closes.Open(&harness.engine, Full(5));
    closes.Read(Text(2, 4));
    closes.Write(9);
  });
  writes.WaitUntilDone();
  closes.WaitUntilDone();
  harness.Do([] {});
  harness.Do([&] { EXPECT_EQ(harness.engine.stats().cache.used_blocks, 0); });
  EXPECT_EQ(harness.engine.stats().sequences, 0);
}

TEST_P(EngineTest, AClosedSequenceHearsNothingOfTheStepItWasIn) {
  EngineHarness harness(GetParam());
  Writer a, b;
  // Whoever comes first closes the other.
  a.after_token = [&](Writer&) { b.sequence.reset(); };
  b.after_token = [&](Writer&) { a.sequence.reset(); };
  harness.Do([&] {
    for (Writer* writer : {&a, &b}) {
      writer->Open(&harness.engine, Full());
      writer->Read({1, 2, 3});
      writer->Write(5);
    }
  });
  (harness.Do([] {}), a.sequence != nullptr ? a : b).WaitUntilDone();
  harness.engine.Stop();
  EXPECT_EQ(a.written.size() + b.written.size(), 5u);
  EXPECT_EQ(a.rows.empty(), b.sequence != nullptr);
}

TEST_P(EngineTest, ACutSequenceHearsNothingOfRowsThatAreGone) {
  EngineHarness harness(GetParam());
  Writer a, b;
  a.after_token = [&](Writer& w) {
    if (w.written.size() == 1) b.sequence->Clear();
  };
  b.after_token = [&](Writer& w) {
    if (w.written.size() == 1) a.sequence->Clear();
  };
  harness.Do([&] {
    for (Writer* writer : {&a, &b}) {
      writer->Open(&harness.engine, Full());
      writer->Read({1, 2, 3});
      writer->Write(2);
    }
  });
  harness.Do([] {});
  Writer* cut = nullptr;
  harness.Do([&] { cut = a.rows.empty() ? &a : &b; });
  harness.Do([&] {
    EXPECT_TRUE(cut->rows.empty());
    EXPECT_EQ(cut->sequence->length(), 0);
  });
}

// Steps.

TEST_P(EngineTest, ALongPromptNeverDelaysOthersByMoreThanOneChunk) {
  EngineHarness harness(GetParam(),
                        {.max_decode_rows = 64, .prefill_chunk_tokens = 64});
  Writer talks, reads;
  talks.after_token = [&](Writer& writer) {
    if (writer.written.size() != 5) return;
    reads.Open(&harness.engine, Sinks(4, 60));
    reads.Read(Text(1, 6000));
    reads.Write(1);
  };
  harness.Do([&] {
    talks.Open(&harness.engine, Full());
    talks.Read({1, 2, 3});
    talks.Write(150);
  });
  talks.WaitUntilDone();
  reads.WaitUntilDone();
  harness.engine.Stop();

  const int64_t talker = talks.sequence->id();
  int64_t between = 0;  // tokens of others since the talker's last row
  int64_t longest = 0, steps_together = 0;
  int64_t talked = 0;
  for (const StepTrace& trace : harness.traces) {
    if (talked == 150) break;
    bool has_talker = false;
    for (const auto& [id, tokens] : trace.rows) {
      has_talker = has_talker || id == talker;
      if (id != talker) between += tokens;
    }
    if (!has_talker) continue;
    longest = std::max(longest, between);
    steps_together += between > 0;
    between = 0;
    ++talked;
  }
  EXPECT_EQ(longest, 64);
  EXPECT_GE(steps_together, 6000 / 64);
}

TEST_P(EngineTest, AShortPromptIsReadBetweenTwoChunksOfALongOne) {
  EngineHarness harness(GetParam(), {.prefill_chunk_tokens = 64});
  Writer slow, quick;
  harness.Do([&] {
    slow.Open(&harness.engine, Sinks(4, 60));
    slow.Read(Text(1, 6000));
    slow.Write(1);
    quick.Open(&harness.engine, Full());
    quick.Read({1, 2, 3});
    quick.Write(1);
  });
  quick.WaitUntilDone();
  slow.WaitUntilDone();
  harness.engine.Stop();
  using Rows = std::vector<std::pair<int64_t, int>>;
  const int64_t a = slow.sequence->id(), b = quick.sequence->id();
  EXPECT_EQ(Rows(harness.traces[0].rows.begin(), harness.traces[0].rows.end()),
            (Rows{{a, 64}}));
  EXPECT_EQ(Rows(harness.traces[1].rows.begin(), harness.traces[1].rows.end()),
            (Rows{{b, 3}, {a, 61}}));
}

TEST_P(EngineTest, TakesTurnsWhenMoreDecodeThanAStepHolds) {
  EngineHarness harness(GetParam(),
                        {.max_decode_rows = 4, .prefill_chunk_tokens = 16});
  std::vector<Writer> writers(10);
  harness.Do([&] {
    for (size_t i = 0; i < writers.size(); ++i) {
      writers[i].Open(&harness.engine, Full());
      writers[i].Read({static_cast<int32_t>(i)});
      writers[i].Write(30);
    }
  });
  for (Writer& writer : writers) writer.WaitUntilDone();
  harness.engine.Stop();
  for (size_t i = 0; i < writers.size(); ++i) {
    EXPECT_EQ(writers[i].written,
              Oracle(Full(), {static_cast<int32_t>(i)}, 30));
    // At most every third step is one's own: ten writers, four rows.
    uint64_t last = 0;
    int decoded = 0;
    for (const StepTrace& trace : harness.traces) {
      for (const auto& [id, tokens] : trace.rows) {
        if (id != writers[i].sequence->id() || decoded == 30) continue;
        EXPECT_LE(trace.step - last, 3u);
        last = trace.step;
        ++decoded;
      }
    }
    EXPECT_EQ(decoded, 30);
  }
  for (const StepTrace& trace : harness.traces) {
    EXPECT_LE(trace.decode_rows, 4);
  }
}

TEST_P(EngineTest, ThirtyTwoTogetherWriteWhatEachWritesAlone) {
  EngineHarness harness(GetParam(),
                        {.max_decode_rows = 32, .prefill_chunk_tokens = 40});
  std::vector<Writer> writers(32);
  const auto policy = [](size_t i) {
    return i % 2 == 0 ? Full() : Sinks(4, 20 + static_cast<int64_t>(i));
  };
  harness.Do([&] {
    for (size_t i = 0; i < writers.size(); ++i) {
      writers[i].Open(&harness.engine, policy(i));
      writers[i].Read(Text(i, 5 + 7 * static_cast<int64_t>(i)));
      writers[i].Write(100);
    }
  });
  for (Writer& writer : writers) writer.WaitUntilDone();
  harness.engine.Stop();
  for (size_t i = 0; i < writers.size(); ++i) {
    EXPECT_EQ(writers[i].written,
              Oracle(policy(i), Text(i, 5 + 7 * static_cast<int64_t>(i)), 100))
        << i;
  }
  int most = 0;
  for (const StepTrace& trace : harness.traces) {
    most = std::max(most, trace.decode_rows);
    EXPECT_LE(trace.prefill_rows, 40);
  }
  EXPECT_GE(most, 16);
}

TEST_P(EngineTest, CancelsAtRandomPointsGiveEverythingBack) {
  EngineHarness harness(GetParam(),
                        {.max_decode_rows = 8, .prefill_chunk_tokens = 32});
  std::vector<std::unique_ptr<Writer>> writers;
  std::vector<std::pair<int64_t, uint64_t>> closed;  // id, steps by then
  const auto close = [&](Writer& writer) {
    if (writer.sequence == nullptr) return;
    const uint64_t steps =
        harness.traces.empty() ? 0 : harness.traces.back().step;
    closed.emplace_back(writer.sequence->id(), steps);
    writer.sequence.reset();
  };
  for (uint64_t i = 0; i < 400; ++i) {
    const uint64_t dice = testing::Mix(i);
    harness.Do([&] {
      writers.push_back(std::make_unique<Writer>());
      Writer& writer = *writers.back();
      writer.Open(&harness.engine, Sinks(4, 40));
      writer.Read(Text(i, 1 + static_cast<int64_t>(dice % 100)));
      writer.Write(1000);
      if (dice >> 62 == 0) {  // from within a step, after some tokens
        writer.after_token = [&, n = dice % 7](Writer& w) {
          if (w.written.size() > n) close(w);
        };
      }
      if (dice >> 62 == 1) close(writer);  // before its first step
      Writer& victim = *writers[(dice >> 20) % writers.size()];
      if (writers.size() > 20) close(victim);
    });
  }
  harness.Do([&] {
    for (const auto& writer : writers) close(*writer);
  });
  harness.Do([] {});
  const EngineStats stats = harness.engine.stats();
  harness.engine.Stop();
  EXPECT_EQ(closed.size(), 400u);
  EXPECT_EQ(stats.sequences, 0);
  EXPECT_EQ(stats.cache.sequences, 0);
  EXPECT_EQ(stats.cache.used_blocks, 0);
  EXPECT_EQ(stats.cache.reserved_blocks, 0);
  for (const auto& [id, steps] : closed) {
    for (const StepTrace& trace : harness.traces) {
      if (trace.step <= steps) continue;
      for (const auto& row : trace.rows) EXPECT_NE(row.first, id);
    }
  }
}

// Tasks and threads.

TEST(EngineTaskTest, RunsTasksInOrderAndThoseBeforeStartToo) {
  Engine engine(
      std::make_unique<testing::FakeModel>(testing::FakeModelOptions{}),
      std::make_unique<testing::FakeKvStorage>(10), {});
  std::vector<int> order;
  for (int i = 0; i < 5; ++i) engine.Post([&order, i] { order.push_back(i); });
  EXPECT_TRUE(order.empty());
  absl::Notification done;
  engine.Post([&] {
    // Posted from a task: after those that are already there.
    engine.Post([&] { done.Notify(); });
    order.push_back(5);
  });
  engine.Start();
  done.WaitForNotification();
  engine.Stop();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5}));
}

TEST(EngineTaskTest, DropsTasksAfterStop) {
  EngineHarness harness;
  harness.engine.Stop();
  const auto owned = std::make_shared<int>(0);
  bool ran = false;
  harness.engine.Post([owned, &ran] { ran = true; });
  EXPECT_EQ(owned.use_count(), 1);
  harness.engine.Stop();
  EXPECT_FALSE(ran);
}

TEST_P(EngineTest, StopsInTheMidstOfWriting) {
  EngineHarness harness(GetParam());
  Writer writer;
  harness.Do([&] {
    writer.Open(&harness.engine, Sinks(4, 40));
    writer.Read({1});
    writer.Write(1'000'000'000);
  });
  harness.engine.Stop();
  EXPECT_LT(writer.written.size(), 1'000'000'000u);
}

TEST_P(EngineTest, ListensToManyThreads) {
  EngineHarness harness(GetParam());
  std::vector<Writer> writers(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < writers.size(); ++i) {
    threads.emplace_back([&harness, &writer = writers[i], i] {
      harness.engine.Post([&harness, &writer, i] {
        writer.Open(&harness.engine, Full());
        writer.Read(Text(i, 30));
      });
      harness.Do([&writer] { writer.Write(40); });
      while (harness.engine.stats().steps == 0) std::this_thread::yield();
      writer.WaitUntilDone();
    });
  }
  for (std::thread& thread : threads) thread.join();
  harness.engine.Stop();
  for (size_t i = 0; i < writers.size(); ++i) {
    EXPECT_EQ(writers[i].written, Oracle(Full(), Text(i, 30), 40));
  }
}

TEST_P(EngineTest, CountsWhatItDoes) {
  EngineHarness harness(GetParam());
  Writer writer, paused;
  harness.Do([&] {
    writer.Open(&harness.engine, Sinks(4, 20));
    writer.Read(Text(1, 100));
    writer.Write(10);
    paused.Open(&harness.engine, Full());
    paused.Read({1});
    paused.sequence->SetPaused(true);
  });
  writer.WaitUntilDone();
  while (harness.engine.stats().progress_age > absl::ZeroDuration()) {
    std::this_thread::yield();
  }
  const EngineStats stats = harness.engine.stats();
  // Two chunks, nine more tokens, and the last one, which nobody asked about.
  EXPECT_EQ(stats.steps, 12u);
  EXPECT_EQ(stats.sequences, 2);
  EXPECT_EQ(stats.decoding, 0);
  EXPECT_EQ(stats.waiting, 1);
  EXPECT_EQ(stats.cache.sequences, 2);
  EXPECT_GT(stats.cache.evicted_tokens, 0);
}

TEST_P(EngineTest, ItsProgressAgesWhileAStepHangs) {
  absl::Notification reached, release;
  const auto hang = [&](uint64_t, const backends::Batch&) {
    reached.Notify();
    release.WaitForNotification();
    return absl::OkStatus();
  };
  EngineHarness harness(GetParam(), {}, 100,
                        {.before = hang, .edit_logits = {}});
  EXPECT_EQ(harness.engine.stats().progress_age, absl::ZeroDuration());
  Writer writer;
  harness.Do([&] {
    writer.Open(&harness.engine, Full(100));
    writer.Read({1});
  });
  reached.WaitForNotification();
  const absl::Duration early = harness.engine.stats().progress_age;
  while (harness.engine.stats().progress_age <= early) {
    std::this_thread::yield();
  }
  release.Notify();
}

}  // namespace
}  // namespace millrace::engine
