// Steps that are begun behind one another: clients see what they would see if
// each had waited for the one before. The fake model computes a step when it
// ends, so what is read before is not there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <vector>

#include "services/engine/engine.h"
#include "tests/services/engine/engine_harness.h"
#include "tests/testing/fake_model.h"

namespace millrace::engine {
namespace {

using testing::FakeOracle;

// Counts the rows whose token was still being picked when they were begun.
class StepQueueTest : public ::testing::Test {
 protected:
  int rows_ = 0, rows_begun_early_ = 0;
  int begun_ = 0, steps_begun_early_ = 0;
  int fail_begin_ = -1;  // the number of the Begin that fails
  EngineHarness harness_{
      Steps::kQueued,
      {.max_decode_rows = 8, .prefill_chunk_tokens = 16},
      20'000,
      {.before =
           [this](uint64_t call, const backends::Batch& batch) {
             steps_begun_early_ += begun_ > static_cast<int>(call);
             for (const backends::Chunk& chunk : batch.chunks) {
               rows_ += chunk.rows();
               rows_begun_early_ += chunk.picked_before >= 0;
             }
             return absl::OkStatus();
           },
       .edit_logits = {},
       .before_begin =
           [this](const backends::Batch&) {
             return ++begun_ == fail_begin_
                        ? absl::InternalError("begin: no memory")
                        : absl::OkStatus();
           }}};

  void Begin(Writer& writer, absl::Span<const int32_t> prompt, int count) {
    writer.Open(&harness_.engine, Sinks(4, 30), /*rollback_tokens=*/5);
    writer.Read(prompt);
    writer.Write(count);
  }
};

TEST_F(StepQueueTest, ATokenIsReadWhereItIsPicked) {
  const std::vector<int32_t> prompt = Text(1, 20);
  Writer writer;
  harness_.Do([&] { Begin(writer, prompt, 100); });
  writer.WaitUntilDone();
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, Oracle(Sinks(4, 30), prompt, 100));
  EXPECT_GE(rows_begun_early_, 99);
  EXPECT_LE(rows_, 20 + 100 + 2);  // the last one wants no more
}

TEST_F(StepQueueTest, NoStepWaitsWhileAnotherReads) {
  Writer writer, reader;
  harness_.Do([&] {
    Begin(writer, Text(1, 5), 60);
    Begin(reader, Text(2, 500), 20);
  });
  writer.WaitUntilDone();
  reader.WaitUntilDone();
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, Oracle(Sinks(4, 30), Text(1, 5), 60));
  EXPECT_EQ(reader.written, Oracle(Sinks(4, 30), Text(2, 500), 20));
  EXPECT_GE(rows_begun_early_, 59 + 19);
}

TEST_F(StepQueueTest, MoreThanAStepHoldsTakeTurns) {
  std::vector<Writer> writers(11);
  harness_.Do([&] {
    for (size_t i = 0; i < writers.size(); ++i) {
      Begin(writers[i], Text(i, 3), 30);
    }
  });
  for (Writer& writer : writers) writer.WaitUntilDone();
  harness_.engine.Stop();
  for (size_t i = 0; i < writers.size(); ++i) {
    EXPECT_EQ(writers[i].written, Oracle(Sinks(4, 30), Text(i, 3), 30)) << i;
  }
  EXPECT_GE(rows_begun_early_, 150);
}

TEST_F(StepQueueTest, ALonePromptThatRepeatsItselfIsReadWithoutWaiting) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < 160; ++i) prompt.push_back(i % 10);
  Writer writer;
  harness_.Do([&] {
    writer.Open(&harness_.engine, Sinks(4, 30));
    writer.sequence->SetSpeculation(Speculation::kNgram);
    writer.Read(prompt);
    writer.Write(1);
  });
  writer.WaitUntilDone();
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, Oracle(Sinks(4, 30), prompt, 1));
  EXPECT_GE(steps_begun_early_, 8);
}

// ---- What a client does instead ----

// The token that was picked is not used, nor the row that was begun for it.
TEST_F(StepQueueTest, CutsReachAsFarAsWasAskedForWhateverIsRunning) {
  for (const int64_t rollback : {0, 20}) {
    Writer writer;
    std::vector<int64_t> reach;
    writer.after_token = [&](Writer& w) {  // the token is appended by now
      reach.push_back(w.sequence->length() - 1 - w.sequence->EarliestCut());
    };
    harness_.Do([&] {
      writer.Open(&harness_.engine, Sinks(4, 30), rollback);
      writer.Read(Text(1, 60));
      writer.Write(20);
    });
    writer.WaitUntilDone();
    for (const int64_t tokens : reach) EXPECT_GE(tokens, rollback);
    harness_.Do([&] {
      ASSERT_TRUE(
          writer.sequence->Truncate(writer.sequence->length() - 1).ok());
      writer.Write(3);  // computes the last token once more
    });
    writer.WaitUntilDone();
    EXPECT_EQ(writer.written.size(), 23u);
    harness_.Do([&] { writer.Leave(); });
  }
}

// It learns of one token, and then wants the logits of the row behind it.
struct Inquirer : Writer {
  void OnPicked(int64_t, int64_t, int32_t id) override {
    sequence->Append({id});
    sequence->WantLogits(Logits::kAll);
  }
  void OnRows(int64_t, int64_t count, absl::Span<const float> logits) override {
    if (logits.empty()) return;
    rows_of_logits = static_cast<int>(logits.size()) / 97;
    EXPECT_EQ(rows_of_logits, count);
    sequence->WantLogits(Logits::kNone);
    done.Notify();
  }
  int rows_of_logits = 0;
  absl::Notification done;
};

TEST_F(StepQueueTest, ARowThatWasBegunForAPickGivesNoLogits) {
  Inquirer inquirer;
  harness_.Do([&] { Begin(inquirer, Text(1, 20), 30); });
  inquirer.done.WaitForNotification();
  harness_.engine.Stop();
  EXPECT_EQ(inquirer.rows_of_logits, 1);
}

TEST_F(StepQueueTest, InputBehindATokenTakesThePlaceOfTheNextOne) {
  const std::vector<int32_t> prompt = Text(1, 20), input = Text(2, 3);
  FakeOracle oracle({}, Sinks(4, 30));
  oracle.Append(prompt);
  std::vector<int32_t> expected;
  for (int i = 0; i < 40; ++i) {
    for (const int32_t id : oracle.DecodeGreedily(1)) expected.push_back(id);
    if (i % 4 == 3) oracle.Append(input);
  }
  Writer writer;
  writer.after_token = [&](Writer& w) {
    if (w.written.size() % 4 == 0) w.sequence->Append(input);
  };
  harness_.Do([&] { Begin(writer, prompt, 40); });
  writer.WaitUntilDone();
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, expected);
}

TEST_F(StepQueueTest, ACutDropsTheRowThatWasBegun) {
  Writer writer;
  std::vector<int32_t> expected;
  FakeOracle oracle({}, Sinks(4, 30));
  oracle.Append(Text(1, 20));
  for (int i = 1; i <= 40; ++i) {
    expected.push_back(oracle.DecodeGreedily(1)[0]);
    if (i % 5 != 0) continue;
    oracle.Truncate(oracle.length() - 3);
    oracle.Append({7});
  }
  writer.after_token = [](Writer& w) {
    if (w.written.size() % 5 != 0) return;
    ASSERT_TRUE(w.sequence->Truncate(w.sequence->length() - 3).ok());
    w.sequence->Append({7});
  };
  harness_.Do([&] { Begin(writer, Text(1, 20), 40); });
  writer.WaitUntilDone();
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, expected);
  int dropped = 0;
  for (const StepTrace& trace : harness_.traces) dropped += trace.dropped_rows;
  EXPECT_GE(dropped, 7);  // the last cut may come when the engine stops
  EXPECT_LE(dropped, 8);
}

TEST_F(StepQueueTest, AfterAPauseTheSameTokensFollow) {
  Writer writer;
  absl::Notification paused;
  writer.after_token = [&](Writer& w) {
    if (w.written.size() != 10) return;
    w.sequence->SetPaused(true);
    paused.Notify();
  };
  harness_.Do([&] { Begin(writer, Text(1, 20), 30); });
  paused.WaitForNotification();
  harness_.Do([&] { EXPECT_EQ(writer.written.size(), 10u); });
  harness_.Do([&] { writer.sequence->SetPaused(false); });
  writer.WaitUntilDone();
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, Oracle(Sinks(4, 30), Text(1, 20), 30));
}

// Tells how to pick a token only once the one before it is known.
struct Hesitant : Writer {
  std::optional<backends::RowSampling> HowToPick(int unknown_tokens) override {
    if (unknown_tokens > 0) return std::nullopt;
    return backends::RowSampling{};
  }
};

TEST_F(StepQueueTest, AllWaitForOneThatHasToKnowTheTokenBefore) {
  Writer writer;
  Hesitant hesitant;
  harness_.Do([&] {
    Begin(writer, Text(1, 20), 30);
    Begin(hesitant, Text(2, 20), 30);
  });
  writer.WaitUntilDone();
  hesitant.WaitUntilDone();
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, Oracle(Sinks(4, 30), Text(1, 20), 30));
  EXPECT_EQ(hesitant.written, Oracle(Sinks(4, 30), Text(2, 20), 30));
  EXPECT_LE(rows_begun_early_, 3);  // before the other has read its prompt
}

TEST_F(StepQueueTest, LogitsForOneClientComeFromAStepOfItsOwn) {
  Writer writer;
  Scorer scorer;
  const std::vector<int32_t> text = Text(3, 50);
  harness_.Do([&] {
    Begin(writer, Text(1, 20), 30);
    scorer.sequence = *harness_.engine.Open({.policy = Full()}, &scorer);
    scorer.sequence->WantLogits(Logits::kAll);
    scorer.sequence->Append(text);
  });
  writer.WaitUntilDone();
  scorer.done.WaitForNotification();
  harness_.Do([&] { scorer.sequence.reset(); });
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, Oracle(Sinks(4, 30), Text(1, 20), 30));
  FakeOracle oracle({}, Full());
  oracle.Append(text);
  ASSERT_EQ(scorer.all.size(), 50u * 97);
  for (int row : {0, 16, 49}) {
    EXPECT_EQ(std::vector<float>(scorer.all.begin() + row * 97,
                                 scorer.all.begin() + (row + 1) * 97),
              oracle.Logits(row));
  }
}

// The first step is alone, the others are begun behind one another.
TEST_F(StepQueueTest, AStepThatCannotBeBegunEndsThoseInItOnce) {
  for (const int number : {1, 2, 5}) {
    fail_begin_ = begun_ + number;
    Writer writer;
    harness_.Do([&] { Begin(writer, Text(1, 5), 30); });
    writer.WaitUntilDone();
    harness_.Do([&] {
      ASSERT_EQ(writer.errors.size(), 1u);
      EXPECT_EQ(writer.errors[0], absl::InternalError("begin: no memory"));
      EXPECT_EQ(writer.written.size(), static_cast<size_t>(number - 1));
      EXPECT_EQ(writer.sequence->pending_tokens(), 0);
      writer.Leave();
    });
  }
  // The next one is served.
  Writer writer;
  harness_.Do([&] { Begin(writer, Text(1, 5), 30); });
  writer.WaitUntilDone();
  harness_.engine.Stop();
  EXPECT_EQ(writer.written, Oracle(Sinks(4, 30), Text(1, 5), 30));
}

}  // namespace
}  // namespace millrace::engine
