#include "clients/cli/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What is shown, as one text: "> said", "[note]".
class FakeDisplay final : public Display {
 public:
  void Text(absl::string_view text) override { absl::StrAppend(&shown, text); }
  void Said(absl::string_view line, bool queued) override {
    absl::StrAppend(&shown, "> ", line, queued ? " (queued)\n" : "\n");
  }
  void Note(absl::string_view line) override {
    absl::StrAppend(&shown, "[", line, "]\n");
  }
  void Status(const std::string& line) override { status = line; }

  std::string shown, status;
};

class ConversationTest : public ::testing::Test {
 protected:
  ConversationTest() {
    v1::SessionOpened opened;
    for (int i = 0; i < 12; ++i) opened.add_system_token_ids(i);
    conversation_.Begin(opened);
  }

  void Started(uint64_t turn, uint64_t position) {
    v1::ConnectResponse event;
    event.mutable_turn_started()->set_turn(turn);
    event.mutable_turn_started()->set_text_position(position);
    conversation_.Handle(event);
  }
  void Wrote(uint64_t position, const std::string& text) {
    v1::ConnectResponse event;
    event.mutable_output()->set_text_position(position);
    event.mutable_output()->add_token_ids(7);
    event.mutable_output()->set_text(text);
    now_ += absl::Milliseconds(100);
    conversation_.Handle(event);
  }
  void Finished(v1::FinishReason reason, uint64_t position) {
    v1::ConnectResponse event;
    event.mutable_turn_finished()->set_reason(reason);
    event.mutable_turn_finished()->mutable_usage()->set_text_position(position);
    conversation_.Handle(event);
  }

  FakeDisplay display_;
  std::vector<v1::ConnectRequest> sent_;
  absl::Time now_ = absl::UnixEpoch();
  Conversation conversation_{&display_,
                             [this](v1::ConnectRequest request) {
                               sent_.push_back(std::move(request));
                               return sent_.size();
                             },
                             [this] { return now_; }};
};

TEST_F(ConversationTest, ALineBecomesAMessageAndATurn) {
  conversation_.Submit("Tell me of rivers");
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_EQ(sent_[0].append().inputs(0).message().text(), "Tell me of rivers");
  EXPECT_EQ(sent_[0].append().inputs(0).message().role(), v1::ROLE_USER);
  EXPECT_TRUE(sent_[0].append().has_then_generate());
  EXPECT_EQ(conversation_.pending_turns(), 1);
}

TEST_F(ConversationTest, WhatIsWrittenIsShownAsItComes) {
  conversation_.Submit("hi");
  Started(1, 20);
  Wrote(23, "Hel");
  Wrote(24, "lo");
  Finished(v1::FINISH_REASON_END_OF_TURN, 26);
  EXPECT_EQ(display_.shown, "> hi\nHello\n");
  EXPECT_EQ(conversation_.pending_turns(), 0);
}

TEST_F(ConversationTest, ALineTypedMeanwhileIsMarked) {
  conversation_.Submit("hi");
  Started(1, 20);
  conversation_.Submit("and lakes?");
  EXPECT_THAT(display_.shown, HasSubstr("> and lakes? (queued)"));
  EXPECT_THAT(display_.status, HasSubstr("1 queued"));
}

TEST_F(ConversationTest, AnInterruptKeepsWhatWasShown) {
  conversation_.Submit("hi");
  Started(1, 20);
  Wrote(23, "Hel");
  Wrote(24, "");  // half a character: not shown
  EXPECT_TRUE(conversation_.Interrupt());
  EXPECT_EQ(sent_[1].interrupt().keep_until_text_position(), 24u);
}

TEST_F(ConversationTest, NothingToInterruptSendsNothing) {
  EXPECT_FALSE(conversation_.Interrupt());
  EXPECT_TRUE(sent_.empty());
}

TEST_F(ConversationTest, TextIsInsertedOnlyIntoAReply) {
  conversation_.InsertNow(" (in Europe)");
  EXPECT_TRUE(sent_.empty());
  conversation_.Submit("hi");
  Started(1, 20);
  conversation_.InsertNow(" (in Europe)");
  ASSERT_EQ(sent_.size(), 2u);
  EXPECT_TRUE(sent_[1].append().has_next_step());
  EXPECT_EQ(sent_[1].append().inputs(0).text(), " (in Europe)");
}

TEST_F(ConversationTest, TheHorizonIsDrawnAfterTheReply) {
  conversation_.Submit("hi");
  Started(1, 20);
  Wrote(23, "old ");
  Wrote(60, "words that are seen");
  v1::ConnectResponse event;
  v1::CacheUpdate& update = *event.mutable_cache_update();
  update.add_evicted()->set_begin(12);
  update.mutable_evicted(0)->set_end(50);
  update.set_sink_tokens(12);
  update.set_window_tokens(60);
  update.set_total_evicted_tokens(38);
  EXPECT_THAT(conversation_.Stats(), HasSubstr("forgotten       nothing"));
  conversation_.Handle(event);
  EXPECT_THAT(display_.shown, ::testing::Not(HasSubstr("forgotten")));
  EXPECT_THAT(conversation_.Stats(),
              HasSubstr("forgotten       all before \"words that are"));
  Finished(v1::FINISH_REASON_END_OF_TURN, 61);
  EXPECT_THAT(display_.shown,
              HasSubstr("forgotten: all before \"words that are seen...\" but "
                        "the first 12 tokens"));
}

TEST_F(ConversationTest, WhatIsChosenByAttentionIsForgottenHereAndThere) {
  v1::SessionOpened opened;
  opened.mutable_effective_options()->mutable_cache_policy()->mutable_h2o();
  conversation_.Begin(opened);
  v1::ConnectResponse event;
  event.mutable_cache_update()->set_total_evicted_tokens(1234);
  conversation_.Handle(event);
  EXPECT_THAT(conversation_.Stats(),
              HasSubstr("forgotten       1,234 tokens here and there"));
}

TEST_F(ConversationTest, ARefusedLineIsNoPendingTurn) {
  conversation_.Submit("hi");
  v1::ConnectResponse event;
  event.mutable_rejected()->mutable_error()->set_reason("CACHE_FULL");
  event.mutable_rejected()->mutable_error()->set_message("the cache is full");
  conversation_.Handle(event);
  EXPECT_EQ(conversation_.pending_turns(), 0);
  EXPECT_THAT(display_.shown, HasSubstr("[refused: the cache is full]"));
}

TEST_F(ConversationTest, StatusTellsPositionAndSpeed) {
  conversation_.Submit("hi");
  Started(1, 1000);
  Wrote(1003, "a");
  Wrote(1004, "b");
  Wrote(1005, "c");  // 2 tokens in 0.3 s
  EXPECT_THAT(display_.status, HasSubstr("position 1,006"));
  EXPECT_THAT(display_.status, HasSubstr("7 tokens/s"));
}

}  // namespace
}  // namespace millrace::cli
