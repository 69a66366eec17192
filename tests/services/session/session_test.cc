// What the table of states leaves open: where input goes, where cuts are made,
// what refuses, what ends.
#include "services/session/session.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/errors/errors.h"
#include "tests/services/session/session_harness.h"

namespace millrace::session {
namespace {

using engine::FinishReason;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kPlainWindow[] = "sinks:sink_tokens=4,window_tokens=60";

ConversationOptions Plain() {
  ConversationOptions options;
  options.format = Format::kPlain;
  options.system_prompt.reset();
  return options;
}

AppendInput Piece(std::string text) {
  AppendInput piece = Text(std::move(text));
  piece.more_follows = true;
  return piece;
}

FinishReason LastReason(Conversation& chat) {
  return chat.Told<TurnFinished>().back().reason;
}

TEST(SessionTest, ReadsInputWithoutAskingForLogits) {
  Conversation chat(Plain());
  chat.Say(Text("abc"));
  EXPECT_EQ(chat.Steps(10), 1);
  EXPECT_EQ(chat.state(), State::kIdle);
}

TEST(SessionTest, WritesWhatTheModelSaysUpToItsBudget) {
  Conversation chat(Plain());
  chat.Say(Text("abc"));
  chat.Say(Generate(3));
  chat.Run();
  EXPECT_EQ(chat.TextOf(1), "def");  // positions 3, 4, 5
  EXPECT_EQ(LastReason(chat), FinishReason::kMaxTokens);
  EXPECT_EQ(chat.length(), 6);
}

TEST(SessionTest, ATurnWithoutAnyTextIsRejected) {
  Conversation chat(Plain());
  chat.Say(Generate());
  EXPECT_EQ(chat.Rejection(), "INVALID_FIELD");
}

TEST(SessionTest, PiecesOfOneTextAreJoinedBeforeTheyAreTokenised) {
  Conversation chat(Plain());
  chat.Say(Piece("a t"));
  chat.Say(Text("h"));
  chat.Run();
  EXPECT_THAT(chat.sequence->ids(), ElementsAre('a', ' ', kTh));
  const auto accepted = chat.Told<InputAccepted>();
  EXPECT_EQ(accepted[0].tokens, 2u);
  EXPECT_EQ(accepted[1].tokens, 1u);
  EXPECT_EQ(accepted[1].text_position, 2u);
}

TEST(SessionTest, ATurnWaitsForTheLastPieceOfAText) {
  Conversation chat(Plain());
  chat.Say(Piece("a"));
  chat.Say(Generate(2));
  chat.Run();
  EXPECT_THAT(chat.Told<TurnStarted>(), IsEmpty());
  chat.Say(Text("b"));
  chat.Run();
  EXPECT_EQ(chat.Told<TurnStarted>().back().text_position, 2u);
}

TEST(SessionTest, ARunningTurnWritesNothingBetweenThePiecesOfAText) {
  Conversation chat(Plain());
  chat.Say(Text("a"));
  chat.Say(Generate(20));
  chat.RunTo(6);
  chat.Say(Piece("<"));
  chat.Run();
  chat.Say(Text(">"));
  const auto accepted = chat.Told<InputAccepted>();
  EXPECT_EQ(accepted[2].text_position, accepted[1].text_position + 1);
  chat.Run();
  EXPECT_EQ(chat.Told<TurnFinished>().back().usage.generated_tokens, 20u);
}

TEST(SessionTest, ARejectedPieceRejectsTheRestOfItsText) {
  ConversationOptions options = Plain();
  options.max_pending_input_bytes = 100;
  Conversation chat(options);
  chat.Say(Piece("a"));
  chat.Say(Piece(std::string(101, 'b')));  // alone too large
  EXPECT_EQ(chat.Rejection(), "INVALID_FIELD");
  chat.Say(Piece("c"));
  EXPECT_EQ(chat.Rejection(), "PREVIOUS_REJECTED");
  chat.Say(Text("d"));
  EXPECT_EQ(chat.Told<Rejected>().size(), 3u);
  chat.Say(Text("e"));
  chat.Run();
  EXPECT_EQ(chat.Told<Rejected>().size(), 3u);
  EXPECT_THAT(chat.sequence->ids(), ElementsAre('a', 'e'));
  EXPECT_EQ(chat.credit.pending(), 0);
}

TEST(SessionTest, ATextWhoseLastPieceIsDroppedEndsWithTheOneBefore) {
  Conversation chat(Plain());
  chat.Say(Piece(std::string(200, 'a')));
  chat.Say(Text("b"));  // waits until most of the first is read
  chat.Say(Generate(5));
  Interrupt interrupt;
  interrupt.drop_pending_input = true;
  chat.Say(interrupt);
  chat.Say(Text("c"));
  chat.Run();
  EXPECT_EQ(chat.state(), State::kIdle);
  EXPECT_EQ(chat.length(), 201);
  EXPECT_EQ(chat.sequence->ids().back(), 'c');
}

TEST(SessionTest, ATextWithoutAPlaceDoesNotBreakTheOneThatIsComingIn) {
  ConversationOptions options = Plain();
  options.policy = "full:max_tokens=40";
  Conversation chat(options);
  chat.Say(Text("abc"));
  chat.Say(Generate(30));
  AppendInput late = Piece(std::string(20, 'd'));
  late.placement = AtTextPosition{30};
  chat.Say(late);
  chat.Say(Text("d"));
  AppendInput after = Piece("x");
  after.placement = AfterTurn{};
  chat.Say(after);
  chat.Run();
  EXPECT_EQ(chat.Told<Rejected>().size(), 2u);  // at 30 there is no room
  EXPECT_EQ(chat.length(), 34);
  chat.Say(Generate(2));
  chat.Run();
  EXPECT_EQ(chat.Told<TurnStarted>().size(), 1u);
  chat.Say(Text("y"));
  chat.Run();
  EXPECT_EQ(chat.Told<TurnStarted>().back().text_position, 35u);
}

TEST(SessionTest, InputBeyondTheCreditIsRejectedUntilLessWaits) {
  ConversationOptions options = Plain();
  options.max_pending_input_bytes = 300;
  Conversation chat(options);
  chat.Say(Text(std::string(300, 'a')));  // placed: it waits no more
  chat.Say(Text(std::string(200, 'b')));
  chat.Say(Text(std::string(200, 'c')));
  EXPECT_EQ(chat.Rejection(), "INPUT_QUEUE_FULL");
  chat.Run();
  chat.Say(Text(std::string(200, 'c')));
  EXPECT_EQ(chat.Told<Rejected>().size(), 1u);
}

// Notes how many bytes of input wait as each event of a kind is told.
template <typename Told>
void NoteWaiting(Conversation& chat, std::vector<int64_t>& waiting) {
  chat.on_event = [&](const EventBody& event) {
    if (std::holds_alternative<Told>(event)) {
      waiting.push_back(chat.credit.pending());
    }
  };
}

TEST(SessionTest, WhoHearsThatInputIsAcceptedMaySendAsMuchAtOnce) {
  ConversationOptions options = Plain();
  options.max_pending_input_bytes = 100;
  Conversation chat(options);
  std::vector<int64_t> waiting;
  NoteWaiting<InputAccepted>(chat, waiting);
  chat.Say(Text(std::string(100, 'a')));
  chat.Run();
  EXPECT_THAT(waiting, ElementsAre(0));
}

TEST(SessionTest, WhoHearsThatATurnHasEndedMaySendWhatWasDroppedAtOnce) {
  ConversationOptions options = Plain();
  options.max_pending_input_bytes = 100;
  Conversation chat(options);
  std::vector<int64_t> waiting;
  NoteWaiting<TurnFinished>(chat, waiting);
  chat.Say(Text("a"));
  chat.Say(Generate(20));
  chat.RunTo(6);
  AppendInput later =
      Append({TextInput{.text = std::string(100, 'b')}}, AfterTurn{});
  later.then_generate = Generate();
  chat.Say(later);
  Interrupt interrupt;
  interrupt.drop_pending_input = true;
  chat.Say(interrupt);
  EXPECT_THAT(waiting, ElementsAre(0, 0));
}

TEST(SessionTest, TenMegabytesInPiecesNeedNoMoreMemoryThanOne) {
  ConversationOptions options = Plain();
  options.policy = kPlainWindow;
  options.max_pending_input_bytes = 64 << 10;
  options.rollback_tokens = 0;
  options.chunk_tokens = 512;
  Conversation chat(options);
  for (int i = 0; i < 320; ++i) {
    chat.Say(Piece(std::string(32 << 10, 'x')));
    EXPECT_LE(chat.sequence->pending_tokens(), (32 << 10) + 512);
    chat.Run();
    chat.Read();
    EXPECT_LE(chat.sequence->resident_tokens(), 4 + 60 + 512 + 1);
  }
  chat.Say(Text("end"));
  chat.Run();
  EXPECT_THAT(chat.Told<Rejected>(), IsEmpty());
  EXPECT_EQ(chat.length(), 320 * (32 << 10) + 3);
}

TEST(SessionTest, NextStepWaitsForAWholeCharacter) {
  Conversation chat(Plain());
  chat.next_token = [](int64_t position) -> int32_t {
    return position == 5 ? 0xC3 : position == 6 ? 0xA9 : 'x';  // é
  };
  chat.Say(Text("abc"));
  chat.Say(Generate(20));
  chat.RunTo(6);
  chat.Say(Text("!"));
  EXPECT_EQ(chat.Told<InputAccepted>().size(), 1u);
  chat.RunTo(8);
  EXPECT_EQ(chat.Told<InputAccepted>().back().text_position, 7u);
  EXPECT_EQ(chat.TextOf(1).substr(0, 4), "xx\xC3\xA9");
}

TEST(SessionTest, NextStepOvertakesWhatWaitsForTheEndOfTheTurn) {
  Conversation chat(Plain());
  chat.Say(Text("a"));
  chat.Say(Generate(10));
  chat.RunTo(5);
  AppendInput later = Text("LATER");
  later.placement = AfterTurn{};
  const uint64_t after = chat.Say(later);
  const uint64_t now = chat.Say(Text("now"));
  chat.Run();
  const auto accepted = chat.Told<InputAccepted>();
  ASSERT_EQ(accepted.size(), 3u);
  EXPECT_EQ(accepted[1].client_seq, now);
  EXPECT_EQ(accepted[1].text_position, 5u);
  EXPECT_EQ(accepted[1].turn, 1u);
  EXPECT_EQ(accepted[2].client_seq, after);
  EXPECT_EQ(accepted[2].text_position, 14u);  // 1 + 10 + 3
  EXPECT_EQ(accepted[2].turn, 0u);
}

TEST(SessionTest, InputGoesInAtTheTextPositionThatItNames) {
  Conversation chat(Plain());
  chat.Say(Text("a"));
  chat.Say(Generate(10));
  AppendInput at = Text("!");
  at.placement = AtTextPosition{7};
  chat.Say(at);
  chat.Run();
  EXPECT_EQ(chat.Told<InputAccepted>().back().text_position, 7u);
  at.placement = AtTextPosition{7};
  chat.Say(at);
  EXPECT_EQ(chat.Rejection(), "INVALID_FIELD");
}

TEST(SessionTest, InputForATurnThatIsOverIsRejected) {
  Conversation chat(Plain());
  chat.Say(Text("a"));
  const uint64_t turn = chat.Say(Generate(2));
  AppendInput guarded = Text("b");
  guarded.only_in_turn_started_by = turn;
  chat.Say(guarded);
  EXPECT_THAT(chat.Told<Rejected>(), IsEmpty());
  chat.Run();
  EXPECT_EQ(chat.Told<InputAccepted>().back().turn, 1u);
  chat.Say(guarded);
  EXPECT_EQ(chat.Rejection(), "TURN_OVER");
}

TEST(SessionTest, AMessageWithNextStepEndsTheTurn) {
  Conversation chat;
  chat.Say(Ask("one"));
  chat.RunTo(40);
  AppendInput question = Ask("two");
  question.placement = NextStep{};
  chat.Say(question);
  EXPECT_EQ(LastReason(chat), FinishReason::kInput);
  // The message that was broken off is ended for it.
  const auto accepted = chat.Told<InputAccepted>().back();
  EXPECT_EQ(accepted.text_position, 40u);
  EXPECT_EQ(accepted.turn, 0u);
  EXPECT_EQ(chat.sequence->ids()[40], kEndOfTurn);
  EXPECT_EQ(chat.sequence->ids()[41], '\n');
  EXPECT_EQ(chat.sequence->ids()[42], kStart);
  chat.Steps(2);
  EXPECT_EQ(chat.Told<TurnStarted>().back().turn, 2u);
}

TEST(SessionTest, TextOutsideAMessageIsRejectedEvenLate) {
  Conversation chat;
  chat.next_token = [](int64_t position) {
    return position < 40 ? 'x' : kEndOfTurn;
  };
  chat.Say(Ask("one"));
  chat.RunTo(35);
  AppendInput text = Text("late");
  text.placement = AfterTurn{};
  chat.Say(text);
  chat.Run();
  EXPECT_EQ(LastReason(chat), FinishReason::kEndOfTurn);
  EXPECT_EQ(chat.Rejection(), "NOT_IN_MESSAGE");
  EXPECT_EQ(chat.credit.pending(), 0);
}

TEST(SessionTest, ATurnGoesOnWithItsMessageUnlessANewOneIsAskedFor) {
  Conversation chat;
  chat.Say(Ask("one"));
  chat.RunTo(40);
  chat.Say(Interrupt{});
  chat.Say(Generate(5));
  chat.Run();
  EXPECT_TRUE(chat.Told<TurnStarted>().back().continued);
  StartTurn fresh = Generate(5);
  fresh.new_message = true;
  chat.Say(fresh);
  chat.Run();
  const TurnStarted started = chat.Told<TurnStarted>().back();
  EXPECT_FALSE(started.continued);
  EXPECT_THAT(started.prefix_token_ids,
              ElementsAre(kEndOfTurn, '\n', kStart, 'A', ':'));
}

TEST(SessionTest, AnInterruptCutsToWhatTheUserHasSeen) {
  Conversation chat(Plain());
  chat.Say(Text("abc"));
  chat.Say(Generate());
  chat.RunTo(30);
  Interrupt interrupt;
  interrupt.keep_until_text_position = 20;
  chat.Say(interrupt);
  EXPECT_EQ(chat.Told<TurnFinished>().back().kept_until, 20u);
  EXPECT_EQ(chat.length(), 20);
  chat.Say(Generate(1));
  chat.Run();
  EXPECT_EQ(chat.Told<Output>().back().text_position, 20u);
}

TEST(SessionTest, ACutStopsBehindInputThatWasPlacedInTheTurn) {
  Conversation chat(Plain());
  chat.Say(Text("abc"));
  chat.Say(Generate());
  chat.RunTo(10);
  chat.Say(Text("input"));
  chat.RunTo(20);
  Interrupt interrupt;
  interrupt.keep_until_text_position = 5;
  chat.Say(interrupt);
  EXPECT_EQ(chat.Told<TurnFinished>().back().kept_until, 15u);
}

TEST(SessionTest, ACutGoesNoDeeperThanTheCacheAndTellsWhatIsRestored) {
  ConversationOptions options = Plain();
  options.policy = kPlainWindow;
  options.rollback_tokens = 10;
  options.generation.response.cache_update_interval_tokens = 1;
  Conversation chat(options);
  chat.Say(Text("abc"));
  chat.Say(Generate());
  chat.RunTo(200);
  Interrupt interrupt;
  interrupt.keep_until_text_position = 100;
  chat.Say(interrupt);
  const int64_t kept =
      static_cast<int64_t>(chat.Told<TurnFinished>().back().kept_until);
  EXPECT_LE(kept, 190);
  EXPECT_GT(kept, 180);
  // What 200 tokens do not see, and so many do.
  EXPECT_THAT(chat.Told<CacheUpdated>().back().restored,
              ElementsAre(cache::TextRange{kept - 61, 139}));
}

TEST(SessionTest, InterruptDropsWhatWaitsIfAsked) {
  Conversation chat;
  chat.Say(Ask("one"));
  chat.RunTo(40);
  chat.Say(Ask("two"));
  Interrupt interrupt;
  interrupt.drop_pending_input = true;
  chat.Say(interrupt);
  EXPECT_EQ(chat.Told<TurnFinished>().size(), 2u);
  EXPECT_EQ(chat.credit.pending(), 0);
  chat.Run();
  EXPECT_EQ(chat.state(), State::kIdle);
  EXPECT_EQ(chat.length(), 40);
}

TEST(SessionTest, ResetGoesBackToTheSystemBlock) {
  Conversation chat;
  const auto system = chat.Told<Opened>()[0].system_token_ids;
  chat.Say(Ask("one"));
  chat.RunTo(40);
  chat.Say(ResetSession{});
  chat.Run();
  EXPECT_EQ(chat.sequence->ids(), system);
  chat.Say(Append({User("anew")}));
  EXPECT_EQ(chat.Told<InputAccepted>().back().text_position, system.size());
}

TEST(SessionTest, AFullCacheRefusesInputBeforeAnyOfItIsRead) {
  ConversationOptions options = Plain();
  options.policy = "full:max_tokens=20";
  Conversation chat(options);
  chat.Say(Text(std::string(15, 'a')));
  chat.Say(Text(std::string(6, 'b')));
  EXPECT_EQ(chat.Rejection(), "CACHE_FULL");
  EXPECT_EQ(chat.length(), 15);
  chat.Say(Text(std::string(2, 'c')));
  chat.Say(Generate());
  chat.Run();
  EXPECT_EQ(LastReason(chat), FinishReason::kCapacity);
  EXPECT_EQ(chat.length(), 20);
  chat.Say(Generate());
  chat.Run();
  EXPECT_EQ(LastReason(chat), FinishReason::kCapacity);
}

TEST(SessionTest, AFullCacheIsAnErrorIfThePolicySaysSo) {
  ConversationOptions options = Plain();
  options.policy = "full:max_tokens=20,on_full=error";
  Conversation chat(options);
  chat.Say(Text("a"));
  chat.Say(Generate());
  chat.Run();
  EXPECT_EQ(LastReason(chat), FinishReason::kError);
  EXPECT_TRUE(errors::HasReason(chat.Told<TurnFinished>().back().error,
                                errors::Reason::kCacheFull));
  EXPECT_FALSE(chat.closed);
}

TEST(SessionTest, AFailedStepEndsTurnAndSession) {
  Conversation chat(Plain());
  chat.Say(Text("a"));
  chat.Say(Generate());
  chat.RunTo(5);
  chat.sequence->Fail(chat.session.get());
  EXPECT_EQ(LastReason(chat), FinishReason::kError);
  EXPECT_EQ(chat.Told<Closed>().back().reason, CloseReason::kError);
  EXPECT_TRUE(errors::HasReason(chat.Told<Closed>().back().error,
                                errors::Reason::kDeviceError));
}

TEST(SessionTest, AClientThatDoesNotReadPausesItsSession) {
  ConversationOptions options = Plain();
  options.log.max_unread_bytes = 1000;
  Conversation chat(options);
  chat.Say(Text("a"));
  chat.Say(Generate(std::nullopt));
  chat.Run();
  EXPECT_EQ(chat.state(), State::kPaused);
  EXPECT_TRUE(chat.sequence->paused());
  const int64_t before = chat.length();
  chat.Read();
  EXPECT_EQ(chat.state(), State::kWriting);
  chat.Run();
  EXPECT_GT(chat.length(), before);
  chat.Read();
  chat.RunTo(chat.length() + 1);
  chat.Say(Interrupt{});
  // Nothing was dropped.
  chat.Read();
  std::vector<int32_t> ids = {'a'};
  for (const Event& event : chat.read) {
    if (const auto* output = std::get_if<Output>(&event.body)) {
      ids.insert(ids.end(), output->token_ids.begin(), output->token_ids.end());
    }
  }
  EXPECT_EQ(ids, chat.sequence->ids());
}

TEST(SessionTest, AHalfCloseLetsInputAndTurnsComeToTheirEnd) {
  Conversation chat;
  chat.next_token = [](int64_t position) {
    return position % 50 == 0 ? kEndOfTurn : 'x';
  };
  chat.Say(Ask("one"));
  chat.Say(Ask("two"));
  chat.Say(HalfClose{});
  chat.Run();
  EXPECT_EQ(chat.Told<TurnFinished>().size(), 2u);
  EXPECT_EQ(chat.Told<Closed>().back().reason, CloseReason::kClient);
}

TEST(SessionTest, AMessageSentTwiceGetsItsAnswerAgainAndDoesNothing) {
  Conversation chat(Plain());
  const uint64_t seq = chat.Say(Text("abc"));
  chat.Say(Text("abc"), seq);
  chat.Run();
  EXPECT_EQ(chat.length(), 3);
  const auto queued = chat.Told<InputQueued>();
  ASSERT_EQ(queued.size(), 2u);
  EXPECT_EQ(queued[1].client_seq, seq);
  EXPECT_EQ(queued[1].tokens, 3u);
}

TEST(SessionTest, AGapInNumbersIsRejectedAndUsesNoneUp) {
  Conversation chat(Plain());
  chat.Say(Text("abc"), 5);
  EXPECT_EQ(chat.Rejection(), "SEQUENCE_GAP");
  EXPECT_EQ(errors::DetailsOf(chat.Told<Rejected>().back().error)
                .metadata.at("expected_seq"),
            "2");
  chat.Say(Text("abc"), 2);
  EXPECT_EQ(chat.Told<InputQueued>().size(), 1u);
}

TEST(SessionTest, PlainTextTakesNoMessages) {
  Conversation chat(Plain());
  chat.Say(Ask("hi"));
  EXPECT_EQ(chat.Rejection(), "INVALID_FIELD");
}

TEST(SessionTest, ADrainTakesNoNewTurnsAndLetsTheRunningOneFinish) {
  Conversation chat(Plain());
  chat.Say(Text("a"));
  chat.Say(Generate(10));
  chat.RunTo(4);
  chat.session->StartDrain({.reason = "DRAINING"});
  chat.Run();
  EXPECT_EQ(LastReason(chat), FinishReason::kMaxTokens);
  chat.Say(Generate());
  EXPECT_EQ(chat.Rejection(), "DRAINING");
  chat.session->Close(CloseReason::kDrained);
  EXPECT_EQ(chat.Told<Closed>().back().reason, CloseReason::kDrained);
}

TEST(SessionTest, LongInputTellsItsProgressOnceASecond) {
  ConversationOptions options = Plain();
  options.chunk_tokens = 10;
  Conversation chat(options);
  chat.Say(Text(std::string(100, 'x')));
  for (int step = 0; step < 10; ++step) {
    chat.now += absl::Milliseconds(400);
    chat.Steps(1);
  }
  std::vector<uint64_t> read;
  for (const auto& progress : chat.Told<InputProgress>()) {
    read.push_back(progress.tokens_read);
  }
  EXPECT_THAT(read, ElementsAre(30, 60, 90, 100));
}

}  // namespace
}  // namespace millrace::session
