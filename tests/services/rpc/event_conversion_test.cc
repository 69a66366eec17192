#include "services/rpc/event_conversion.h"

#include <gtest/gtest.h>

#include "services/errors/errors.h"

namespace millrace::rpc {
namespace {

v1::ConnectResponse Convert(session::EventBody body) {
  ServerFacts facts;
  facts.model.set_name("tiny");
  facts.features = {"fork"};
  return ToProto(session::Event{7, std::move(body)}, facts);
}

TEST(EventConversion, OpenedTellsWhatTheSessionHas) {
  session::Opened opened;
  opened.session_id = "id";
  opened.resume_token = "secret";
  opened.options.format = session::Format::kChat;
  opened.options.policy = "sinks:sink_tokens=4,window_tokens=60";
  opened.options.idle_timeout = absl::Minutes(30);
  opened.options.rollback_tokens = 256;
  opened.system_token_ids = {1, 9690};
  opened.reserved_bytes = 1000;
  opened.max_pending_input_bytes = 2000;
  const v1::ConnectResponse response = Convert(opened);
  EXPECT_EQ(response.sequence_number(), 7u);
  const v1::SessionOpened& out = response.opened();
  EXPECT_EQ(out.session_id(), "id");
  EXPECT_EQ(out.resume_token(), "secret");
  EXPECT_EQ(out.format(), v1::FORMAT_CHAT);
  EXPECT_EQ(out.effective_options().model(), "tiny");
  EXPECT_EQ(out.effective_options().cache_policy().sinks().window_tokens(),
            60u);
  EXPECT_EQ(out.idle_timeout().seconds(), 1800);
  EXPECT_EQ(out.rollback_tokens(), 256u);
  EXPECT_EQ(out.system_token_ids(1), 9690u);
  EXPECT_EQ(out.reserved_bytes(), 1000u);
  EXPECT_EQ(out.max_pending_input_bytes(), 2000u);
  EXPECT_EQ(out.model().name(), "tiny");
  EXPECT_EQ(out.features(0), "fork");
}

TEST(EventConversion, InputEventsKeepTheirNumbers) {
  EXPECT_EQ(Convert(session::InputQueued{2, 14}).input_queued().tokens(), 14u);
  const auto accepted =
      Convert(session::InputAccepted{3, 36, 4, 1}).input_accepted();
  EXPECT_EQ(accepted.client_seq(), 3u);
  EXPECT_EQ(accepted.text_position(), 36u);
  EXPECT_EQ(accepted.tokens(), 4u);
  EXPECT_EQ(accepted.turn(), 1u);
  const auto progress =
      Convert(session::InputProgress{7, 200, 201, 139}).input_progress();
  EXPECT_EQ(progress.tokens_read(), 200u);
  EXPECT_EQ(progress.tokens_total(), 201u);
  EXPECT_EQ(progress.forgotten_tokens(), 139u);
}

TEST(EventConversion, OutputCarriesTokensTextAndLogprobs) {
  session::Output output;
  output.turn = 1;
  output.text_position = 29;
  output.token_ids = {12, 13};
  output.text = " Rivers";
  engine::TokenLogprobs logprobs;
  logprobs.logprob = -0.5f;
  logprobs.token_id = 12;
  logprobs.top = {{12, -0.5f}, {99, -1.5f}};
  output.logprobs = {logprobs};
  const auto out = Convert(output).output();
  EXPECT_EQ(out.text_position(), 29u);
  EXPECT_EQ(out.token_ids_size(), 2);
  EXPECT_EQ(out.text(), " Rivers");
  EXPECT_EQ(out.logprobs(0).chosen().token_id(), 12u);
  EXPECT_EQ(out.logprobs(0).top(1).token_id(), 99u);
  EXPECT_EQ(out.logprobs(0).top(1).logprob(), -1.5f);
}

TEST(EventConversion, EveryFinishReasonHasItsOwn) {
  using engine::FinishReason;
  const std::pair<FinishReason, v1::FinishReason> pairs[] = {
      {FinishReason::kEndOfTurn, v1::FINISH_REASON_END_OF_TURN},
      {FinishReason::kStop, v1::FINISH_REASON_STOP},
      {FinishReason::kMaxTokens, v1::FINISH_REASON_MAX_TOKENS},
      {FinishReason::kTimeLimit, v1::FINISH_REASON_TIME_LIMIT},
      {FinishReason::kRepetition, v1::FINISH_REASON_REPETITION},
      {FinishReason::kCapacity, v1::FINISH_REASON_CAPACITY},
      {FinishReason::kInterrupted, v1::FINISH_REASON_INTERRUPTED},
      {FinishReason::kInput, v1::FINISH_REASON_INPUT},
      {FinishReason::kDrained, v1::FINISH_REASON_DRAINED},
      {FinishReason::kError, v1::FINISH_REASON_ERROR},
  };
  EXPECT_EQ(std::size(pairs), v1::FinishReason_ARRAYSIZE - 1u);
  for (const auto& [native, message] : pairs) {
    EXPECT_EQ(ToProto(native), message);
  }
}

TEST(EventConversion, TurnFinishedTellsWhyAndWhatItCost) {
  session::TurnFinished finished;
  finished.turn = 2;
  finished.reason = engine::FinishReason::kStop;
  finished.stop_match = engine::StopMatch{"END", -1, "END of"};
  finished.usage.generated_tokens = 10;
  finished.usage.time_to_first_token = absl::Milliseconds(250);
  finished.kept_until = 99;
  const auto out = Convert(finished).turn_finished();
  EXPECT_EQ(out.turn(), 2u);
  EXPECT_EQ(out.stop_match().stop_string(), "END");
  EXPECT_EQ(out.stop_match().trimmed_text(), "END of");
  EXPECT_EQ(out.usage().time_to_first_token().nanos(), 250'000'000);
  EXPECT_EQ(out.kept_until(), 99u);
  EXPECT_FALSE(out.has_error());
}

TEST(EventConversion, StopTokenIsNoString) {
  EXPECT_EQ(ToProto(engine::StopMatch{"", 5, ""}).stop_token_id(), 5u);
}

TEST(EventConversion, TurnWithoutTokensHasNoTimeToTheFirst) {
  EXPECT_FALSE(ToProto(session::Usage{}).has_time_to_first_token());
}

TEST(EventConversion, CacheUpdatesNameRanges) {
  session::CacheUpdated update;
  update.evicted = {{12, 13}};
  update.restored = {{3, 5}};
  update.visible_tokens = 73;
  update.sink_tokens = 12;
  update.window_tokens = 61;
  const auto out = Convert(update).cache_update();
  EXPECT_EQ(out.evicted(0).begin(), 12u);
  EXPECT_EQ(out.evicted(0).end(), 13u);
  EXPECT_EQ(out.restored(0).end(), 5u);
  EXPECT_EQ(out.sink_tokens() + out.window_tokens(), out.visible_tokens());
}

TEST(EventConversion, RefusalsAndEndsCarryTheirError) {
  const absl::Status error = errors::InvalidField("inputs[0]", "no kind");
  const auto rejected = Convert(session::Rejected{6, error}).rejected();
  EXPECT_EQ(rejected.client_seq(), 6u);
  EXPECT_EQ(rejected.error().field(), "inputs[0]");
  session::Closed closed;
  closed.reason = session::CloseReason::kError;
  closed.error = error;
  EXPECT_EQ(Convert(closed).closed().reason(), v1::CLOSE_REASON_ERROR);
  EXPECT_EQ(Convert(closed).closed().error().reason(), "INVALID_FIELD");
  session::GoAway go_away;
  go_away.deadline = absl::FromUnixSeconds(55);
  go_away.reason = "DRAINING";
  EXPECT_EQ(Convert(go_away).go_away().deadline().seconds(), 55);
  EXPECT_FALSE(Convert(go_away).go_away().resumable());
}

TEST(EventConversion, HeartbeatIsOutsideTheOrder) {
  EXPECT_EQ(HeartbeatEvent().sequence_number(), 0u);
  EXPECT_TRUE(HeartbeatEvent().has_heartbeat());
}

}  // namespace
}  // namespace millrace::rpc
