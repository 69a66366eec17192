#include "services/metrics/event_recorder.h"

#include <variant>

#include "services/errors/errors.h"

namespace millrace::metrics {
namespace {

double Seconds(absl::Duration duration) {
  return absl::ToDoubleSeconds(duration);
}

absl::string_view ReasonLabel(session::CloseReason reason) {
  switch (reason) {
    case session::CloseReason::kClient:
      return "client";
    case session::CloseReason::kIdle:
      return "idle";
    case session::CloseReason::kDeleted:
      return "deleted";
    case session::CloseReason::kDrained:
      return "drained";
    case session::CloseReason::kError:
      return "error";
  }
  return "error";
}

}  // namespace

absl::string_view ReasonLabel(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kEndOfTurn:
      return "end_of_turn";
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kMaxTokens:
      return "max_tokens";
    case engine::FinishReason::kTimeLimit:
      return "time_limit";
    case engine::FinishReason::kRepetition:
      return "repetition";
    case engine::FinishReason::kCapacity:
      return "capacity";
    case engine::FinishReason::kInterrupted:
      return "interrupted";
    case engine::FinishReason::kInput:
      return "input";
    case engine::FinishReason::kDrained:
      return "drained";
    case engine::FinishReason::kError:
      return "error";
  }
  return "error";
}

void EventRecorder::OnEvent(const std::string& id, absl::string_view policy,
                            const session::EventBody& event) {
  absl::MutexLock lock(&mutex_);
  auto [found, is_new] = states_.try_emplace(id);
  State& state = found->second;
  if (is_new) {
    state.policy = std::string(policy);
    state.opened = now_();
  }
  std::visit([&](const auto& body) { On(state, body); }, event);
  if (std::holds_alternative<session::Closed>(event)) states_.erase(id);
}

void EventRecorder::OnOver(const std::string& id, absl::string_view reason) {
  absl::MutexLock lock(&mutex_);
  const auto found = states_.find(id);
  if (found == states_.end()) return;
  const State& state = found->second;
  if (state.turn_running) {
    metrics_->TurnFinished(
        {.policy = state.policy,
         .reason = std::string(reason),
         .duration_seconds = Seconds(now_() - state.opened)});
  }
  states_.erase(found);
}

int64_t EventRecorder::running_turns() const {
  absl::MutexLock lock(&mutex_);
  int64_t running = 0;
  for (const auto& [id, state] : states_) running += state.turn_running;
  return running;
}

void EventRecorder::On(State& state, const session::Opened& event) {
  metrics_->TokensRead(state.policy, event.system_token_ids.size());
}

void EventRecorder::On(State& state, const session::InputAccepted& event) {
  metrics_->TokensRead(state.policy, event.tokens);
}

void EventRecorder::On(State& state, const session::TurnStarted& event) {
  state.turn_running = true;
  state.last_output = absl::InfinitePast();
  metrics_->TokensRead(state.policy, event.prefix_token_ids.size());
}

void EventRecorder::On(State& state, const session::Output& event) {
  const int count = static_cast<int>(session::NumTokens(event));
  if (count == 0) return;
  const absl::Time now = now_();
  if (state.last_output != absl::InfinitePast()) {
    metrics_->TokenGaps(state.policy, event.text_position, count,
                        Seconds(now - state.last_output) / count);
  }
  state.last_output = now;
  metrics_->TokensWritten(state.policy, count);
}

void EventRecorder::On(State& state, const session::TurnFinished& event) {
  state.turn_running = false;
  const bool wrote = event.usage.generated_tokens > 0;
  const absl::Duration until_first =
      wrote ? event.usage.time_to_first_token : event.usage.queued;
  metrics_->TurnFinished(
      {.policy = state.policy,
       .reason = std::string(ReasonLabel(event.reason)),
       .queued_seconds = Seconds(event.usage.queued),
       .first_token_seconds = wrote ? Seconds(until_first) : -1,
       .duration_seconds = Seconds(until_first + event.usage.decode)});
  if (errors::HasReason(event.error, errors::Reason::kNonfiniteLogits)) {
    metrics_->NonfiniteLogits();
  }
}

void EventRecorder::On(State& state, const session::CacheUpdated& event) {
  int64_t evicted = 0;
  for (const auto& range : event.evicted) evicted += range.end - range.begin;
  metrics_->TokensEvicted(state.policy, evicted);
}

void EventRecorder::On(State& state, const session::Closed& event) {
  metrics_->SessionEnded(ReasonLabel(event.reason),
                         Seconds(now_() - state.opened));
}

}  // namespace millrace::metrics
