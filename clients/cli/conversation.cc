#include "clients/cli/conversation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/common.h"
#include "clients/cli/policy_text.h"

namespace millrace::cli {

using Response = v1::ConnectResponse;

void Conversation::Begin(const v1::SessionOpened& opened) {
  opened_ = opened;
  horizon_.Clear();
  usage_.Clear();
  position_ = visible_ = opened.system_token_ids_size();
  evicted_ = forgotten_end_ = sinks_ = window_ = 0;
  pending_turns_ = 0;
  writing_ = closed_ = false;
  ShowStatus();
}

void Conversation::Submit(absl::string_view line) {
  v1::ConnectRequest request;
  v1::AppendInput& append = *request.mutable_append();
  v1::ChatMessage& message = *append.add_inputs()->mutable_message();
  message.set_role(v1::ROLE_USER);
  message.set_text(std::string(line));
  append.mutable_then_generate();
  send_(std::move(request));
  display_->Said(line, /*queued=*/pending_turns_ > 0);
  ++pending_turns_;
  ShowStatus();
}

void Conversation::InsertNow(absl::string_view text) {
  if (!writing_) {
    display_->Note("nothing is being written; type the message without /now");
    return;
  }
  v1::ConnectRequest request;
  v1::AppendInput& append = *request.mutable_append();
  append.add_inputs()->set_text(std::string(text));
  append.mutable_next_step();
  send_(std::move(request));
  display_->Text(text);
}

bool Conversation::Interrupt() {
  if (pending_turns_ == 0) return false;
  v1::ConnectRequest request;
  v1::Interrupt& interrupt = *request.mutable_interrupt();
  if (writing_) interrupt.set_keep_until_text_position(shown_until_);
  send_(std::move(request));
  return true;
}

void Conversation::Reset() {
  v1::ConnectRequest request;
  request.mutable_reset();
  send_(std::move(request));
}

void Conversation::Handle(const Response& event) {
  switch (event.event_case()) {
    case Response::kInputAccepted:
      position_ = event.input_accepted().text_position() +
                  event.input_accepted().tokens();
      // What was inserted is shown, and no interrupt may cut it.
      if (event.input_accepted().turn() != 0) shown_until_ = position_;
      break;
    case Response::kInputProgress:
      if (event.input_progress().forgotten_tokens() > 0) {
        display_->Note(absl::StrCat(
            "of that input, ",
            WithCommas(event.input_progress().forgotten_tokens()),
            " tokens are forgotten already: it is longer than the window"));
      }
      break;
    case Response::kTurnStarted:
      writing_ = true;
      turn_tokens_ = 0;
      turn_start_ = now_();
      position_ = event.turn_started().text_position() +
                  event.turn_started().prefix_token_ids_size();
      shown_until_ = position_;
      break;
    case Response::kOutput:
      HandleOutput(event.output());
      break;
    case Response::kTurnFinished:
      HandleTurnFinished(event.turn_finished());
      break;
    case Response::kCacheUpdate:
      HandleCacheUpdate(event.cache_update());
      break;
    case Response::kOptionsUpdated:
      Begin(opened_);
      display_->Note("the text is forgotten; the system prompt stays");
      break;
    case Response::kRejected:
      HandleRejected(event.rejected());
      break;
    case Response::kGoAway:
      display_->Note("the server is about to end; it takes no new messages");
      break;
    case Response::kClosed:
      closed_ = true;
      break;
    default:
      break;
  }
  ShowStatus();
}

void Conversation::HandleOutput(const v1::TokenOutput& output) {
  position_ = output.text_position() + output.token_ids_size();
  if (window_ == 0) visible_ = position_;
  turn_tokens_ += output.token_ids_size();
  const double seconds = absl::ToDoubleSeconds(now_() - turn_start_);
  if (turn_tokens_ > 1 && seconds > 0) {
    tokens_per_second_ = (turn_tokens_ - 1) / seconds;
  }
  if (output.text().empty()) return;
  display_->Text(output.text());
  horizon_.Add(output.text_position(), output.text());
  shown_until_ = position_;
}

void Conversation::HandleTurnFinished(const v1::TurnFinished& turn) {
  usage_ = turn.usage();
  position_ = usage_.text_position();
  visible_ = usage_.visible_tokens();
  pending_turns_ = std::max(0, pending_turns_ - 1);
  writing_ = false;
  display_->Text("\n");
  if (turn.has_error()) {
    display_->Note(absl::StrCat("failed: ", turn.error().message()));
  } else if (turn.reason() != v1::FINISH_REASON_END_OF_TURN) {
    display_->Note(absl::StrCat("ended: ", FinishReasonName(turn.reason())));
  }
  ShowHorizon();
}

void Conversation::HandleCacheUpdate(const v1::CacheUpdate& update) {
  evicted_ = update.total_evicted_tokens();
  visible_ = update.visible_tokens();
  sinks_ = update.sink_tokens();
  window_ = std::max(1u, update.window_tokens());
  for (const v1::TextRange& range : update.evicted()) {
    horizon_.Forget(range.end());
    forgotten_end_ = std::max(forgotten_end_, range.end());
  }
  for (const v1::TextRange& range : update.restored()) {
    forgotten_end_ = std::min(forgotten_end_, range.begin());
  }
}

void Conversation::HandleRejected(const v1::Rejected& rejected) {
  // A message that is refused brings no turn.
  if (rejected.error().reason() != "NO_TURN") {
    pending_turns_ = std::max(0, pending_turns_ - 1);
  }
  display_->Note(absl::StrCat("refused: ", rejected.error().message()));
}

void Conversation::ShowHorizon() {
  if (!horizon_.TakeMoved()) return;
  display_->Note(absl::StrCat("---- forgotten: ", Forgotten(), " ----"));
}

std::string Conversation::Forgotten() const {
  if (evicted_ == 0) return "nothing";
  if (forgotten_end_ != sinks_ + evicted_) {  // not all of it in one piece
    return absl::StrCat(WithCommas(evicted_),
                        " tokens here and there, which got least attention");
  }
  return absl::StrCat("all before \"", horizon_.Words(), "...\" but the first ",
                      sinks_, " tokens");
}

void Conversation::ShowStatus() {
  std::string status = absl::StrCat(
      " position ", WithCommas(position_), "   visible ", WithCommas(visible_),
      "   ", absl::StrFormat("%.0f tokens/s", tokens_per_second_));
  if (pending_turns_ > 0) {
    absl::StrAppend(&status, "   ", writing_ ? "writing" : "reading",
                    ", Ctrl-C stops");
  }
  if (pending_turns_ > 1) {
    absl::StrAppend(&status, "   ", pending_turns_ - 1, " queued");
  }
  display_->Status(status);
}

std::string Conversation::Stats() const {
  const v1::EffectiveOptions& options = opened_.effective_options();
  return absl::StrFormat(
      "policy          %s\n"
      "text position   %s tokens, %s evicted, %s visible\n"
      "forgotten       %s\n"
      "memory          %s for keys and values, for good\n"
      "last reply      %s tokens, %.1f tokens/s",
      PolicyText(options.cache_policy()), WithCommas(position_),
      WithCommas(evicted_), WithCommas(visible_), Forgotten(),
      Bytes(opened_.reserved_bytes()), WithCommas(usage_.generated_tokens()),
      tokens_per_second_);
}

}  // namespace millrace::cli
