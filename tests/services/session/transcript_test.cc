// The transcript of the API's design, with positions that the test computes:
// sinks 4 and a window of 60, and a pinned system block.
#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/errors/errors.h"
#include "tests/services/session/session_harness.h"

namespace millrace::session {
namespace {

using cache::TextRange;
using ::testing::ElementsAre;

constexpr uint64_t kWindow = 60;

class TranscriptTest : public ::testing::Test {
 protected:
  TranscriptTest()
      : chat_({.policy = "sinks:sink_tokens=4,window_tokens=60"}),
        system_(static_cast<uint64_t>(
            chat_.Told<Opened>()[0].system_token_ids.size())) {
    chat_.Run();
  }

  // Position n - 61 is the first that the window of a text of n tokens shows.
  uint64_t WindowBegin(uint64_t n) const {
    return std::max(system_, n - kWindow - 1);
  }
  void ExpectUpdate(const CacheUpdated& update, uint64_t from, uint64_t n) {
    EXPECT_THAT(update.evicted,
                ElementsAre(TextRange{static_cast<int64_t>(WindowBegin(from)),
                                      static_cast<int64_t>(WindowBegin(n))}));
    EXPECT_EQ(update.visible_tokens, system_ + kWindow + 1);
    EXPECT_EQ(update.text_position, n);
  }

  Conversation chat_;
  const uint64_t system_;
};

TEST_F(TranscriptTest, TellsEveryPositionAndEveryEviction) {
  // C2: a message, and a turn.
  const uint64_t ask = chat_.Say(Ask("Tell me of rivers"));
  auto accepted = chat_.Told<InputAccepted>().back();
  EXPECT_EQ(accepted.text_position, system_);
  EXPECT_EQ(accepted.tokens, chat_.Told<InputQueued>().back().tokens);
  chat_.RunTo(static_cast<int64_t>(system_ + accepted.tokens + 4 + 7));
  const TurnStarted first = chat_.Told<TurnStarted>().back();
  EXPECT_EQ(first.turn, 1u);
  EXPECT_EQ(first.started_by, ask);
  EXPECT_EQ(first.text_position, system_ + accepted.tokens);
  EXPECT_FALSE(first.continued);
  EXPECT_THAT(first.prefix_token_ids, ElementsAre('\n', kStart, 'A', ':'));
  EXPECT_EQ(chat_.Told<Output>().front().text_position,
            first.text_position + 4);

  // C3: text into the running turn.
  const uint64_t here = static_cast<uint64_t>(chat_.length());
  chat_.Say(Text(" (in Europe)"));
  accepted = chat_.Told<InputAccepted>().back();
  EXPECT_EQ(accepted.text_position, here);
  EXPECT_EQ(accepted.turn, 1u);
  chat_.Steps(1);
  EXPECT_EQ(chat_.Told<Output>().back().text_position, here + accepted.tokens);

  // The window is full: the first eviction is told at once.
  const uint64_t full = system_ + kWindow + 2;
  chat_.RunTo(static_cast<int64_t>(full) - 1);
  EXPECT_TRUE(chat_.Told<CacheUpdated>().empty());
  chat_.RunTo(static_cast<int64_t>(full));
  ExpectUpdate(chat_.Told<CacheUpdated>().back(), full - 1, full);

  // C4: interrupted; what was evicted since comes before the end.
  chat_.RunTo(static_cast<int64_t>(full) + 31);
  chat_.Say(Interrupt{.started_by = ask});
  ASSERT_EQ(chat_.Told<CacheUpdated>().size(), 2u);
  ExpectUpdate(chat_.Told<CacheUpdated>().back(), full, full + 31);
  ASSERT_TRUE(std::holds_alternative<TurnFinished>(chat_.events.back()));
  const TurnFinished interrupted = chat_.Told<TurnFinished>().back();
  EXPECT_EQ(interrupted.reason, engine::FinishReason::kInterrupted);
  EXPECT_EQ(interrupted.kept_until, full + 31);
  EXPECT_EQ(interrupted.usage.text_position, full + 31);

  // C5 goes on with the same message, C6 is one too many.
  const uint64_t again = chat_.Say(Generate());
  chat_.Steps(1);
  const uint64_t over = chat_.Say(Generate());
  const TurnStarted second = chat_.Told<TurnStarted>().back();
  EXPECT_EQ(second.turn, 2u);
  EXPECT_EQ(second.started_by, again);
  EXPECT_EQ(second.text_position, full + 31);
  EXPECT_TRUE(second.continued);
  EXPECT_TRUE(second.prefix_token_ids.empty());
  EXPECT_EQ(chat_.Told<Rejected>().back().client_seq, over);
  EXPECT_EQ(chat_.Rejection(), "TURN_RUNNING");

  // It ends by itself.
  const uint64_t end = full + 31 + 27;
  chat_.next_token = [&](int64_t position) {
    return position + 1 == static_cast<int64_t>(end) ? kEndOfTurn : 'w';
  };
  chat_.Run();
  ExpectUpdate(chat_.Told<CacheUpdated>().back(), full + 31, end);
  EXPECT_EQ(chat_.Told<TurnFinished>().back().reason,
            engine::FinishReason::kEndOfTurn);
  EXPECT_EQ(chat_.Told<TurnFinished>().back().usage.generated_tokens, 27u);

  // C7: an input far longer than the window, glue included.
  const uint64_t flood = chat_.Say(Append({User(std::string(195, 'x'))}));
  chat_.Run();
  accepted = chat_.Told<InputAccepted>().back();
  EXPECT_EQ(accepted.client_seq, flood);
  EXPECT_EQ(accepted.text_position, end);
  EXPECT_EQ(accepted.tokens, 200u);  // \n <s> U : ... </s>
  ASSERT_TRUE(std::holds_alternative<InputProgress>(chat_.events.back()));
  const InputProgress progress = chat_.Told<InputProgress>().back();
  EXPECT_EQ(progress.tokens_read, 200u);
  EXPECT_EQ(progress.forgotten_tokens, 200 - kWindow - 1);
  EXPECT_EQ(chat_.Told<CacheUpdated>().back().text_position, end + 200);

  // C8
  chat_.Say(CloseSession{});
  EXPECT_EQ(chat_.Told<Closed>().back().reason, CloseReason::kClient);
  chat_.Read();
  for (size_t i = 0; i < chat_.read.size(); ++i) {
    EXPECT_EQ(chat_.read[i].sequence_number, i + 1);
  }
}

}  // namespace
}  // namespace millrace::session
