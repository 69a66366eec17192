#include "services/session/session.h"

#include <algorithm>
#include <utility>

#include "services/session/refusals.h"

namespace millrace::session {

using engine::FinishReason;

namespace {

int TokensToRemember(const engine::GenerationOptions& options) {
  return std::max<int>(options.sampling.penalty_window_tokens,
                       options.stopping.repetition_guard);
}

}  // namespace

Session::Session(Context context, EffectiveOptions options,
                 cache::MadePolicy policy, std::vector<int32_t> system_ids)
    : context_(std::move(context)),
      options_(std::move(options)),
      outbox_(context_.log, context_.on_event),
      text_({.policy = std::move(policy),
             .chat_format = context_.chat_format,
             .system_ids = std::move(system_ids),
             .recent_tokens = TokensToRemember(options_.generation)},
            &outbox_),
      composer_({.tokenizer = context_.tokenizer,
                 .text = &text_,
                 .outbox = &outbox_,
                 .credit = context_.credit,
                 .now = context_.now,
                 .read_ahead_tokens = context_.read_ahead_tokens}),
      last_active_(context_.now()) {}

void Session::Start(std::unique_ptr<engine::Sequence> sequence, Opened opened) {
  text_.Open(std::move(sequence));
  opened.options = options_;
  opened.system_token_ids = text_.system_ids();
  opened.reserved_bytes = static_cast<uint64_t>(text_.reserved_bytes());
  outbox_.Emit(std::move(opened));
  text_.AppendSystemBlock();
  Publish();
}

// ---- What goes in: messages, and rows that are computed ----

void Session::Handle(Command command) {
  if (!text_.is_open()) return;
  last_active_ = context_.now();
  if (!std::holds_alternative<HalfClose>(command.body) &&
      !std::holds_alternative<Repeated>(command.body) &&
      !std::holds_alternative<OutOfOrder>(command.body)) {
    outbox_.OnMessage(command.client_seq);
  }
  std::visit([&](auto& body) { On(command.client_seq, body); }, command.body);
  Advance();
  Publish();
}

void Session::OnRows(int64_t first, int64_t count,
                     absl::Span<const float> logits) {
  AfterStep(first + count, {.logits = logits});
}

void Session::OnPicked(int64_t first, int64_t count, int32_t id) {
  AfterStep(first + count, {.picked = id});
}

void Session::AfterStep(int64_t computed, const engine::NextToken& next) {
  last_active_ = context_.now();
  composer_.OnRows(computed, next, last_active_,
                   options_.generation.response.cache_update_interval_tokens);
  Advance();
  Publish();
}

// ---- The table of README.md, row by row: what a message does ----
//
// Its last column is what a row does if writing(). IDLE and READING differ in
// when what waits gets its place, which is the Composer's.

// append: queued. In which turn, or behind it, its placement says.
void Session::On(uint64_t seq, PreparedInput& input) {
  InputSituation situation = composer_.situation();
  situation.draining = draining_;
  const absl::Status status = CheckAppend(input, situation);
  if (!status.ok()) return composer_.RejectInput(seq, input, status);
  const int64_t tokens = TokensAhead(input, situation);
  outbox_.Answer(seq, InputQueued{.client_seq = seq,
                                  .tokens = static_cast<uint64_t>(tokens)});
  std::optional<TurnRequest> turn;
  if (input.then_generate) {
    turn = Request(seq, *std::move(input.then_generate));
  }
  composer_.AddInput(seq, std::move(input), std::move(turn));
}

// generate: a turn waits for what is before it. While writing, TURN_RUNNING.
void Session::On(uint64_t seq, StartTurn& start) {
  if (writing()) return outbox_.Reject(seq, TurnRunning());
  if (draining_) return outbox_.Reject(seq, NoNewTurns());
  if (composer_.NothingToGoOnFrom()) return outbox_.Reject(seq, NoTextYet());
  composer_.AddTurn(seq, Request(seq, std::move(start)));
}

// interrupt: NO_TURN. While writing, the turn ends with INTERRUPTED.
void Session::On(uint64_t seq, Interrupt& interrupt) {
  if (!writing()) return outbox_.Reject(seq, NoTurn());
  const auto& meant = interrupt.started_by;
  if (!composer_.Interrupt(meant, interrupt.keep_until_text_position,
                           interrupt.drop_pending_input)) {
    outbox_.Reject(seq, NoTurnOf(*meant));
  }
}

// update: new options, from the next turn that is asked for.
void Session::On(uint64_t seq, UpdateOptions& update) {
  engine::GenerationOptions& options = options_.generation;
  if (update.sampling) options.sampling = *std::move(update.sampling);
  if (update.stopping) options.stopping = *std::move(update.stopping);
  if (update.response) options.response = *update.response;
  outbox_.AnswerOptions(seq, options_);
}

// reset: all turns end, what waits is dropped, and the text begins anew.
void Session::On(uint64_t seq, ResetSession&) {
  composer_.Reset();
  outbox_.AnswerOptions(seq, options_);
}

// close: all turns end, what waits is dropped, and that was it.
void Session::On(uint64_t seq, CloseSession&) { Close(CloseReason::kClient); }

// half-close: closed when all is read and the turns have ended: see Advance.
void Session::On(uint64_t seq, HalfClose&) {
  half_closed_ = true;
  composer_.EndText();
}

// No message at all, whatever the state: refused, repeated, out of order.

void Session::On(uint64_t seq, Refused& refused) {
  outbox_.Reject(seq, refused.status);
  if (refused.append) composer_.BreakText(refused.more_follows);
}

void Session::On(uint64_t seq, Repeated&) { outbox_.Repeat(seq, options_); }

void Session::On(uint64_t seq, OutOfOrder& gap) {
  outbox_.Emit(Rejected{.client_seq = seq, .error = gap.status});
}

TurnRequest Session::Request(uint64_t seq, StartTurn start) const {
  engine::GenerationOptions options = options_.generation;
  if (start.sampling) options.sampling = *std::move(start.sampling);
  if (start.stopping) options.stopping = *std::move(start.stopping);
  if (start.response) options.response = *start.response;
  return {.started_by = seq,
          .options = std::move(options),
          .new_message = start.new_message,
          .requested = context_.now()};
}

// ---- After each of them ----

void Session::Advance() {
  if (!text_.is_open()) return;
  composer_.Advance();
  PauseWhileFull();
  // After a half-close: nothing more will come.
  if (!half_closed_ || !composer_.Over()) return;
  composer_.RejectRest();
  Close(CloseReason::kClient);
}

void Session::PauseWhileFull() {
  if (!text_.is_open() || paused_since_ || !outbox_.Full()) return;
  text_.SetPaused(true);
  paused_since_ = context_.now();
  if (writing()) ++times_paused_;
  OnDrained();  // if it has drained before the pause
}

void Session::OnDrained() {
  if (!text_.is_open() || !paused_since_ || outbox_.Full()) return;
  paused_since_.reset();
  text_.SetPaused(false);
  Publish();
}

// ---- The end, and what the store says ----

// The cache may hold anything now, so the session ends with the step.
void Session::OnError(const absl::Status& status) {
  Close(CloseReason::kError, DeviceFailed());
}

void Session::Close(CloseReason reason, const absl::Status& error) {
  if (!text_.is_open()) return;
  const FinishReason finish = !error.ok() ? FinishReason::kError
                              : reason == CloseReason::kDrained
                                  ? FinishReason::kDrained
                                  : FinishReason::kInterrupted;
  composer_.Stop({finish, error});
  outbox_.Emit(
      Closed{.reason = reason, .error = error, .usage = text_.TotalUsage()});
  Publish();
  text_.Close();
  {
    absl::MutexLock lock(&mutex_);
    snapshot_.state = State::kClosed;
  }
  context_.on_closed(reason);
}

void Session::StartDrain(const GoAway& go_away) {
  if (!text_.is_open() || std::exchange(draining_, true)) return;
  outbox_.Emit(go_away);
  PauseWhileFull();
  Publish();
}

void Session::OnResumed(bool gap) {
  if (!text_.is_open()) return;
  last_active_ = context_.now();
  outbox_.Emit(Resumed{.gap = gap,
                       .text_position = static_cast<uint64_t>(text_.length()),
                       .state = state(),
                       .turn = composer_.turn()});
  PauseWhileFull();
  Publish();
}

// ---- How it is ----

State Session::state() const {
  if (!text_.is_open()) return State::kClosed;
  if (writing()) return paused_since_ ? State::kPaused : State::kWriting;
  return composer_.reading() ? State::kReading : State::kIdle;
}

Session::Snapshot Session::snapshot() const {
  absl::MutexLock lock(&mutex_);
  return snapshot_;
}

void Session::Publish() {
  if (!text_.is_open()) return;
  Snapshot now{.state = state(),
               .usage = text_.TotalUsage(),
               .last_active = last_active_,
               .paused_since = paused_since_,
               .waits_for_client = composer_.waits_for_client(),
               .times_paused = times_paused_};
  absl::MutexLock lock(&mutex_);
  snapshot_ = std::move(now);
}

}  // namespace millrace::session
