#include "services/rpc/event_conversion.h"

#include <variant>

#include "services/rpc/error_conversion.h"
#include "services/rpc/options_conversion.h"
#include "services/rpc/time_conversion.h"

namespace millrace::rpc {
namespace {

v1::Format ToProto(session::Format format) {
  return format == session::Format::kChat ? v1::FORMAT_CHAT : v1::FORMAT_PLAIN;
}

v1::CloseReason ToProto(session::CloseReason reason) {
  switch (reason) {
    case session::CloseReason::kClient:
      return v1::CLOSE_REASON_CLIENT;
    case session::CloseReason::kIdle:
      return v1::CLOSE_REASON_IDLE;
    case session::CloseReason::kDeleted:
      return v1::CLOSE_REASON_DELETED;
    case session::CloseReason::kDrained:
      return v1::CLOSE_REASON_DRAINED;
    case session::CloseReason::kError:
      return v1::CLOSE_REASON_ERROR;
  }
  return v1::CLOSE_REASON_UNSPECIFIED;
}

void Set(const cache::TextRange& range, v1::TextRange* out) {
  out->set_begin(range.begin);
  out->set_end(range.end);
}

v1::TokenLogprobs ToProto(const engine::TokenLogprobs& logprobs) {
  v1::TokenLogprobs out;
  out.mutable_chosen()->set_token_id(logprobs.token_id);
  out.mutable_chosen()->set_logprob(logprobs.logprob);
  for (const auto& [top_id, logprob] : logprobs.top) {
    v1::TokenLogprob* top = out.add_top();
    top->set_token_id(top_id);
    top->set_logprob(logprob);
  }
  return out;
}

// Fills the arm of a response that each kind of event has.
struct ArmWriter {
  const ServerFacts& facts;
  v1::ConnectResponse& out;

  void operator()(const session::Opened& opened) {
    v1::SessionOpened& m = *out.mutable_opened();
    m.set_session_id(opened.session_id);
    m.set_resume_token(opened.resume_token);
    *m.mutable_effective_options() = Options(opened.options);
    m.set_format(ToProto(opened.options.format));
    *m.mutable_idle_timeout() = rpc::ToProto(opened.options.idle_timeout);
    *m.mutable_detach_timeout() = rpc::ToProto(opened.options.detach_timeout);
    m.set_rollback_tokens(opened.options.rollback_tokens);
    for (int32_t id : opened.system_token_ids) m.add_system_token_ids(id);
    m.set_reserved_bytes(opened.reserved_bytes);
    m.set_max_pending_input_bytes(opened.max_pending_input_bytes);
    *m.mutable_model() = facts.model;
    for (const std::string& name : facts.features) m.add_features(name);
  }

  void operator()(const session::Resumed& resumed) {
    v1::SessionResumed& m = *out.mutable_resumed();
    m.set_gap(resumed.gap);
    m.set_text_position(resumed.text_position);
    m.set_state(rpc::ToProto(resumed.state));
    m.set_turn(resumed.turn);
  }

  void operator()(const session::InputQueued& queued) {
    v1::InputQueued& m = *out.mutable_input_queued();
    m.set_client_seq(queued.client_seq);
    m.set_tokens(queued.tokens);
  }

  void operator()(const session::InputAccepted& accepted) {
    v1::InputAccepted& m = *out.mutable_input_accepted();
    m.set_client_seq(accepted.client_seq);
    m.set_text_position(accepted.text_position);
    m.set_tokens(accepted.tokens);
    m.set_turn(accepted.turn);
  }

  void operator()(const session::InputProgress& progress) {
    v1::InputProgress& m = *out.mutable_input_progress();
    m.set_client_seq(progress.client_seq);
    m.set_tokens_read(progress.tokens_read);
    m.set_tokens_total(progress.tokens_total);
    m.set_forgotten_tokens(progress.forgotten_tokens);
  }

  void operator()(const session::TurnStarted& started) {
    v1::TurnStarted& m = *out.mutable_turn_started();
    m.set_turn(started.turn);
    m.set_started_by(started.started_by);
    m.set_text_position(started.text_position);
    for (int32_t id : started.prefix_token_ids) m.add_prefix_token_ids(id);
    m.set_continued(started.continued);
  }

  void operator()(const session::Output& output) {
    *out.mutable_output() = rpc::ToProto(output);
  }

  void operator()(const session::TurnFinished& finished) {
    v1::TurnFinished& m = *out.mutable_turn_finished();
    m.set_turn(finished.turn);
    m.set_reason(rpc::ToProto(finished.reason));
    if (finished.stop_match) {
      *m.mutable_stop_match() = rpc::ToProto(*finished.stop_match);
    }
    *m.mutable_usage() = rpc::ToProto(finished.usage);
    m.set_kept_until(finished.kept_until);
    if (!finished.error.ok()) *m.mutable_error() = ToError(finished.error);
  }

  void operator()(const session::CacheUpdated& update) {
    *out.mutable_cache_update() = rpc::ToProto(update);
  }

  void operator()(const session::OptionsUpdated& updated) {
    *out.mutable_options_updated()->mutable_effective_options() =
        Options(updated.options);
  }

  void operator()(const session::Rejected& rejected) {
    v1::Rejected& m = *out.mutable_rejected();
    m.set_client_seq(rejected.client_seq);
    *m.mutable_error() = ToError(rejected.error);
  }

  void operator()(const session::GoAway& go_away) {
    v1::GoAway& m = *out.mutable_go_away();
    *m.mutable_deadline() = rpc::ToProto(go_away.deadline);
    m.set_reason(go_away.reason);
    m.set_resumable(go_away.resumable);
  }

  void operator()(const session::Closed& closed) {
    v1::SessionClosed& m = *out.mutable_closed();
    m.set_reason(ToProto(closed.reason));
    if (!closed.error.ok()) *m.mutable_error() = ToError(closed.error);
    *m.mutable_usage() = rpc::ToProto(closed.usage);
  }

  v1::EffectiveOptions Options(const session::EffectiveOptions& options) {
    return rpc::ToProto(options.generation, options.policy, facts.model.name());
  }
};

}  // namespace

v1::ConnectResponse ToProto(const session::Event& event,
                            const ServerFacts& facts) {
  v1::ConnectResponse out;
  out.set_sequence_number(event.sequence_number);
  std::visit(ArmWriter{facts, out}, event.body);
  return out;
}

v1::ConnectResponse HeartbeatEvent() {
  v1::ConnectResponse out;
  out.mutable_heartbeat();
  return out;
}

v1::TokenOutput ToProto(const session::Output& output) {
  v1::TokenOutput out;
  out.set_turn(output.turn);
  out.set_text_position(output.text_position);
  for (int32_t id : output.token_ids) out.add_token_ids(id);
  out.set_text(output.text);
  for (const auto& logprobs : output.logprobs) {
    *out.add_logprobs() = ToProto(logprobs);
  }
  return out;
}

v1::CacheUpdate ToProto(const session::CacheUpdated& update) {
  v1::CacheUpdate out;
  for (const auto& range : update.evicted) Set(range, out.add_evicted());
  for (const auto& range : update.restored) Set(range, out.add_restored());
  for (const auto& range : update.recomputed) {
    Set(range, out.add_recomputed());
  }
  out.set_visible_tokens(update.visible_tokens);
  out.set_text_position(update.text_position);
  out.set_total_evicted_tokens(update.total_evicted_tokens);
  out.set_sink_tokens(update.sink_tokens);
  out.set_window_tokens(update.window_tokens);
  return out;
}

v1::Usage ToProto(const session::Usage& usage) {
  v1::Usage out;
  out.set_input_tokens(usage.input_tokens);
  out.set_generated_tokens(usage.generated_tokens);
  out.set_evicted_tokens(usage.evicted_tokens);
  out.set_text_position(usage.text_position);
  out.set_visible_tokens(usage.visible_tokens);
  out.set_peak_resident_tokens(usage.peak_resident_tokens);
  *out.mutable_queued() = ToProto(usage.queued);
  if (usage.generated_tokens > 0) {
    *out.mutable_time_to_first_token() = ToProto(usage.time_to_first_token);
  }
  *out.mutable_decode() = ToProto(usage.decode);
  out.set_drafted_tokens(usage.drafted_tokens);
  out.set_accepted_tokens(usage.accepted_tokens);
  return out;
}

v1::StopMatch ToProto(const engine::StopMatch& match) {
  v1::StopMatch out;
  if (match.token_id >= 0) {
    out.set_stop_token_id(match.token_id);
  } else {
    out.set_stop_string(match.text);
  }
  out.set_trimmed_text(match.trimmed_text);
  return out;
}

v1::FinishReason ToProto(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kEndOfTurn:
      return v1::FINISH_REASON_END_OF_TURN;
    case engine::FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case engine::FinishReason::kMaxTokens:
      return v1::FINISH_REASON_MAX_TOKENS;
    case engine::FinishReason::kTimeLimit:
      return v1::FINISH_REASON_TIME_LIMIT;
    case engine::FinishReason::kRepetition:
      return v1::FINISH_REASON_REPETITION;
    case engine::FinishReason::kCapacity:
      return v1::FINISH_REASON_CAPACITY;
    case engine::FinishReason::kInterrupted:
      return v1::FINISH_REASON_INTERRUPTED;
    case engine::FinishReason::kInput:
      return v1::FINISH_REASON_INPUT;
    case engine::FinishReason::kDrained:
      return v1::FINISH_REASON_DRAINED;
    case engine::FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::SessionState ToProto(session::State state) {
  switch (state) {
    case session::State::kIdle:
      return v1::SESSION_STATE_IDLE;
    case session::State::kReading:
      return v1::SESSION_STATE_READING;
    case session::State::kWriting:
      return v1::SESSION_STATE_WRITING;
    case session::State::kPaused:
      return v1::SESSION_STATE_PAUSED;
    case session::State::kDetached:
      return v1::SESSION_STATE_DETACHED;
    case session::State::kClosed:
      return v1::SESSION_STATE_UNSPECIFIED;
  }
  return v1::SESSION_STATE_UNSPECIFIED;
}

}  // namespace millrace::rpc
