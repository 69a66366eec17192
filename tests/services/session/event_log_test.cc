#include "services/session/event_log.h"

#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace::session {
namespace {

using ::testing::ElementsAre;

Output Tokens(uint64_t position, std::vector<int32_t> ids, std::string text,
              uint64_t turn = 1) {
  return {.turn = turn,
          .text_position = position,
          .token_ids = std::move(ids),
          .text = std::move(text)};
}

std::vector<uint64_t> Numbers(EventLog& log) {
  std::vector<uint64_t> numbers;
  while (const auto event = log.Take()) {
    numbers.push_back(event->sequence_number);
  }
  return numbers;
}

// Every event of these logs but the first weighs 128 bytes.
EventLog::Limits Small() {
  return {.max_unread_events = 3,
          .max_unread_bytes = 1 << 20,
          .max_kept_events = 2,
          .max_kept_bytes = 1 << 20,
          .max_unread_answers = 4};
}

TEST(EventLogTest, NumbersEventsFromOneWithoutAGap) {
  EventLog log({});
  for (int i = 0; i < 5; ++i) log.Append(InputQueued{});
  EXPECT_EQ(log.last_sequence_number(), 5u);
  EXPECT_THAT(Numbers(log), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_FALSE(log.Take().has_value());
}

TEST(EventLogTest, JoinsOutputThatNobodyHasTaken) {
  EventLog log({});
  log.Append(Tokens(10, {5}, "a"));
  log.Append(Tokens(11, {6, 7}, "bc"));
  log.Append(Tokens(13, {}, "held"));
  const auto event = log.Take();
  const auto& output = std::get<Output>(event->body);
  EXPECT_EQ(output.text_position, 10u);
  EXPECT_THAT(output.token_ids, ElementsAre(5, 6, 7));
  EXPECT_EQ(output.text, "abcheld");
  EXPECT_FALSE(log.Take().has_value());
}

TEST(EventLogTest, JoinsNothingAcrossAGapATurnOrAnEvent) {
  EventLog log({});
  log.Append(Tokens(10, {5}, "a"));
  log.Append(Tokens(15, {6}, "b"));
  log.Append(Tokens(16, {7}, "c", /*turn=*/2));
  log.Append(InputAccepted{});
  log.Append(Tokens(17, {8}, "d", /*turn=*/2));
  EXPECT_THAT(Numbers(log), ElementsAre(1, 2, 3, 4, 5));
}

TEST(EventLogTest, JoinsTokensThatAreNotNamed) {
  EventLog log({});
  Output first = Tokens(10, {}, "a");
  first.unnamed_tokens = 1;
  log.Append(first);
  log.Append(Tokens(11, {}, "b"));
  EXPECT_EQ(std::get<Output>(log.Take()->body).text, "ab");
}

TEST(EventLogTest, NeverChangesWhatWasTaken) {
  EventLog log({});
  log.Append(Tokens(10, {5}, "a"));
  log.Take();
  log.Append(Tokens(11, {6}, "b"));
  ASSERT_TRUE(log.Seek(0));
  log.Append(Tokens(12, {7}, "c"));
  EXPECT_EQ(std::get<Output>(log.Take()->body).text, "a");
  EXPECT_EQ(std::get<Output>(log.Take()->body).text, "bc");
}

TEST(EventLogTest, IsFullOfUnreadEventsUntilOneIsTaken) {
  EventLog log(Small());
  int drained = 0;
  log.SetOnDrained([&] { ++drained; });
  for (int i = 0; i < 3; ++i) log.Append(InputProgress{});
  EXPECT_TRUE(log.Full());
  log.Append(InputProgress{});
  log.Take();
  EXPECT_TRUE(log.Full());
  EXPECT_EQ(drained, 0);
  log.Take();
  EXPECT_FALSE(log.Full());
  EXPECT_EQ(drained, 1);
  Numbers(log);
  EXPECT_EQ(drained, 1);
}

TEST(EventLogTest, IsFullOfUnreadBytes) {
  EventLog log({.max_unread_bytes = 1000});
  log.Append(Tokens(0, {}, std::string(500, 'x')));
  EXPECT_FALSE(log.Full());
  log.Append(Tokens(0, {}, std::string(500, 'x')));  // joins the first
  EXPECT_TRUE(log.Full());
  EXPECT_EQ(log.unread_bytes(), 1128);
  log.Take();
  EXPECT_EQ(log.unread_bytes(), 0);
}

TEST(EventLogTest, GoesBackToEveryEventThatItKeeps) {
  EventLog log({});
  for (int i = 0; i < 4; ++i) log.Append(InputQueued{});
  for (uint64_t last = 0; last <= 4; ++last) {
    Numbers(log);
    ASSERT_TRUE(log.Seek(last));
    std::vector<uint64_t> expected;
    for (uint64_t n = last + 1; n <= 4; ++n) expected.push_back(n);
    EXPECT_EQ(Numbers(log), expected);
  }
}

TEST(EventLogTest, KeepsTheLastEventsThatWereRead) {
  EventLog log(Small());
  for (int i = 0; i < 6; ++i) log.Append(InputProgress{});
  Numbers(log);
  EXPECT_TRUE(log.Seek(4));
  EXPECT_THAT(Numbers(log), ElementsAre(5, 6));
  EXPECT_FALSE(log.Seek(3));
}

TEST(EventLogTest, KeepsBytesWithinTheirLimit) {
  EventLog log({.max_kept_bytes = 300});
  for (int i = 0; i < 6; ++i) log.Append(InputProgress{});
  Numbers(log);
  EXPECT_TRUE(log.Seek(4));
  EXPECT_FALSE(log.Seek(3));
}

TEST(EventLogTest, NeverForgetsWhatIsUnread) {
  EventLog log(Small());
  for (int i = 0; i < 100; ++i) log.Append(InputProgress{});
  EXPECT_EQ(Numbers(log).size(), 100u);
}

TEST(EventLogTest, AGapLeavesTheCursorAtTheNextEvent) {
  EventLog log(Small());
  for (int i = 0; i < 6; ++i) log.Append(InputProgress{});
  Numbers(log);
  EXPECT_FALSE(log.Seek(1));
  EXPECT_FALSE(log.Take().has_value());
  log.Append(Resumed{.gap = true});
  EXPECT_EQ(log.Take()->sequence_number, 7u);
  EXPECT_FALSE(log.Seek(99));  // never given
}

TEST(EventLogTest, UnreadAnswersCountOnce) {
  EventLog log(Small());
  for (int i = 0; i < 100; ++i) log.Append(InputProgress{});
  for (int i = 0; i < 4; ++i) log.Append(Rejected{});
  EXPECT_FALSE(log.TooManyAnswers());
  log.Append(InputQueued{});
  EXPECT_TRUE(log.TooManyAnswers());
  Numbers(log);
  EXPECT_FALSE(log.TooManyAnswers());
  EXPECT_TRUE(log.Seek(103));
  EXPECT_FALSE(log.TooManyAnswers());
}

TEST(EventLogTest, AnswersAreBoundedInBytesToo) {
  EventLog log({.max_unread_answer_bytes = 1000});
  log.Append(Rejected{.error = absl::InternalError(std::string(900, 'x'))});
  EXPECT_TRUE(log.TooManyAnswers());
}

TEST(EventLogTest, WakesTheWriterAfterEveryAppend) {
  EventLog log({});
  int woken = 0;
  log.SetWakeUp([&] { ++woken; });
  log.Append(InputQueued{});
  log.Append(InputQueued{});
  EXPECT_EQ(woken, 2);
  log.SetWakeUp(nullptr);
  log.Append(InputQueued{});
  EXPECT_EQ(woken, 2);
}

TEST(EventLogTest, OneThreadWritesWhileAnotherReads) {
  EventLog log({});
  std::thread writer([&] {
    for (uint64_t i = 0; i < 10'000; ++i) {
      log.Append(Tokens(i, {static_cast<int32_t>(i)}, "x"));
    }
    log.Append(Closed{});
  });
  std::vector<int32_t> ids;
  for (uint64_t number = 1;;) {
    const auto event = log.Take();
    if (!event) continue;
    ASSERT_EQ(event->sequence_number, number++);
    const auto* output = std::get_if<Output>(&event->body);
    if (output == nullptr) break;
    ids.insert(ids.end(), output->token_ids.begin(), output->token_ids.end());
  }
  writer.join();
  ASSERT_EQ(ids.size(), 10'000u);
  EXPECT_EQ(ids.back(), 9'999);
}

}  // namespace
}  // namespace millrace::session
