#include "services/metrics/event_recorder.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/errors/errors.h"

namespace millrace::metrics {
namespace {

class Recorder : public testing::Test {
 protected:
  Recorder() {
    metrics_.SetModel({.name = "m", .backend = "b", .policies = {"sinks"}});
  }

  void Tell(const session::EventBody& event) {
    recorder_.OnEvent("s1", "sinks", event);
  }
  void Write(std::vector<int32_t> ids, uint64_t position = 100) {
    session::Output output;
    output.turn = 1;
    output.text_position = position;
    output.token_ids = std::move(ids);
    Tell(output);
  }
  session::TurnFinished Finished(uint64_t generated) {
    session::TurnFinished finished;
    finished.reason = engine::FinishReason::kStop;
    finished.usage.generated_tokens = generated;
    finished.usage.queued = absl::Milliseconds(10);
    finished.usage.time_to_first_token = absl::Milliseconds(200);
    finished.usage.decode = absl::Seconds(1);
    return finished;
  }
  double Value(absl::string_view series) {
    for (absl::string_view line : absl::StrSplit(metrics_.Scrape(), '\n')) {
      const std::vector<std::string> words = absl::StrSplit(line, ' ');
      if (words[0] == series) return std::stod(words[1]);
    }
    return -1;
  }
  double Tokens(absl::string_view kind) {
    return Value(absl::StrCat("millrace_", kind,
                              "_tokens_total{model=\"m\",policy=\"sinks\"}"));
  }

  absl::Time now_ = absl::UnixEpoch();
  Metrics metrics_{{}};
  EventRecorder recorder_{&metrics_, [this] { return now_; }};
};

TEST_F(Recorder, CountsTokensThatWereReadWrittenAndEvicted) {
  session::Opened opened;
  opened.system_token_ids = {1, 2, 3};
  Tell(opened);
  session::InputAccepted accepted;
  accepted.tokens = 40;
  Tell(accepted);
  session::TurnStarted started;
  started.prefix_token_ids = {7, 8};
  Tell(started);
  Write({5});
  Write({6, 7});
  session::CacheUpdated update;
  update.evicted = {{4, 10}, {20, 25}};
  Tell(update);
  EXPECT_EQ(Tokens("prompt"), 45);
  EXPECT_EQ(Tokens("generated"), 3);
  EXPECT_EQ(Tokens("evicted"), 11);
}

TEST_F(Recorder, TokensWithoutIdsCountToo) {
  Tell(session::TurnStarted{});
  session::Output output;
  output.unnamed_tokens = 12;
  Tell(output);
  EXPECT_EQ(Tokens("generated"), 12);
}

TEST_F(Recorder, TurnsRunFromStartToFinish) {
  EXPECT_EQ(recorder_.running_turns(), 0);
  Tell(session::TurnStarted{});
  EXPECT_EQ(recorder_.running_turns(), 1);
  Tell(Finished(1));
  EXPECT_EQ(recorder_.running_turns(), 0);
  EXPECT_EQ(
      Value("millrace_requests_finished_total{model=\"m\",reason=\"stop\"}"),
      1);
  EXPECT_DOUBLE_EQ(Value("millrace_request_duration_seconds_sum{model=\"m\"}"),
                   1.2);
}

TEST_F(Recorder, GapsAreBetweenTokensOfOneTurn) {
  const char kCount[] =
      "millrace_inter_token_latency_seconds_count{model=\"m\",policy="
      "\"sinks\",position_class=\"lt_4k\"}";
  Tell(session::TurnStarted{});
  Write({1});
  EXPECT_EQ(Value(kCount), 0);
  now_ += absl::Milliseconds(20);
  Write({2, 3});
  EXPECT_EQ(Value(kCount), 2);
  Tell(Finished(3));
  now_ += absl::Hours(1);
  Tell(session::TurnStarted{});
  Write({4});
  EXPECT_EQ(Value(kCount), 2);  // the hour is no latency
}

TEST_F(Recorder, AbandonedRequestsCountAsWhatTheCallSays) {
  Tell(session::TurnStarted{});
  recorder_.OnOver("s1", "cancelled");
  EXPECT_EQ(
      Value(
          "millrace_requests_finished_total{model=\"m\",reason=\"cancelled\"}"),
      1);
  EXPECT_EQ(recorder_.running_turns(), 0);
}

TEST_F(Recorder, FinishedRequestsAreNotCountedTwice) {
  Tell(session::TurnStarted{});
  Tell(Finished(1));
  recorder_.OnOver("s1", "cancelled");
  EXPECT_EQ(
      Value(
          "millrace_requests_finished_total{model=\"m\",reason=\"cancelled\"}"),
      0);
}

TEST_F(Recorder, SessionsLiveFromFirstEventToClosed) {
  Tell(session::Opened{});
  now_ += absl::Seconds(90);
  session::Closed closed;
  closed.reason = session::CloseReason::kIdle;
  Tell(closed);
  EXPECT_EQ(Value("millrace_session_duration_seconds_sum{reason=\"idle\"}"),
            90);
}

TEST_F(Recorder, NonfiniteLogitsAreCounted) {
  Tell(session::TurnStarted{});
  session::TurnFinished finished = Finished(0);
  finished.reason = engine::FinishReason::kError;
  finished.error =
      errors::MakeError(absl::StatusCode::kInternal,
                        errors::Reason::kNonfiniteLogits, "not finite");
  Tell(finished);
  EXPECT_EQ(Value("millrace_nonfinite_logits_total{model=\"m\"}"), 1);
}

}  // namespace
}  // namespace millrace::metrics
