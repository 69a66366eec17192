#include "services/session/session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"

namespace millrace::session {
namespace {

using engine::FinishReason;
using engine::Logits;
using errors::MakeError;
using errors::Reason;

constexpr absl::Duration kProgressInterval = absl::Seconds(1);

absl::Status Refusal(Reason reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

absl::Status PreviousRejected() {
  return Refusal(Reason::kPreviousRejected,
                 "an earlier piece of this text was rejected or dropped; send "
                 "the rest as a new text");
}

absl::Status NotInMessage() {
  return Refusal(Reason::kNotInMessage,
                 "text and token ids can be added inside an assistant message "
                 "only, and none is open; send a chat message");
}

absl::Status NoTurnOf(Reason reason, uint64_t started_by) {
  return Refusal(reason, absl::StrCat("no turn that message ", started_by,
                                      " started is running"));
}

// Template text goes before each message, whatever the text ends with.
std::vector<int32_t> Render(const PreparedInput& input, ChatTail* tail) {
  std::vector<int32_t> ids;
  for (const InputPart& part : input.parts) {
    if (part.is_message) {
      const std::vector<int32_t> before = tail->BeforeMessage();
      ids.insert(ids.end(), before.begin(), before.end());
      tail->OnMessage();
    }
    ids.insert(ids.end(), part.ids.begin(), part.ids.end());
  }
  return ids;
}

std::optional<int64_t> TextLimit(const cache::CachePolicy& policy) {
  if (policy.traits().unbounded_stream) return std::nullopt;
  return policy.MaxResidentTokens(1);
}

WaitingItems::Queue* UnlessEmpty(WaitingItems::Queue* queue) {
  return queue->empty() ? nullptr : queue;
}

}  // namespace

Session::Session(Context context, EffectiveOptions options,
                 cache::MadePolicy policy, std::vector<int32_t> system_ids)
    : context_(std::move(context)),
      options_(std::move(options)),
      policy_(std::move(policy)),
      system_ids_(std::move(system_ids)),
      text_limit_(TextLimit(*policy_.policy)),
      recent_(std::max(options_.generation.sampling.penalty_window_tokens,
                       options_.generation.stopping.repetition_guard)),
      reporter_(policy_.policy),
      tail_(context_.chat_format),
      last_active_(context_.now()) {}

void Session::Start(std::unique_ptr<engine::Sequence> sequence, Opened opened) {
  sequence_ = std::move(sequence);
  opened.options = options_;
  opened.system_token_ids = system_ids_;
  opened.reserved_bytes = static_cast<uint64_t>(sequence_->reserved_bytes());
  Emit(std::move(opened));
  ReadSystemBlock();
  Publish();
}

void Session::ReadSystemBlock() {
  sequence_->Append(system_ids_);
  recent_.Add(system_ids_);
  total_.input_tokens += system_ids_.size();
}

// ---- Messages ----

void Session::Handle(Command command) {
  if (!sequence_) return;
  last_active_ = context_.now();
  if (!std::holds_alternative<HalfClose>(command.body) &&
      !std::holds_alternative<Repeated>(command.body) &&
      !std::holds_alternative<OutOfOrder>(command.body)) {
    answers_.OnMessage(command.client_seq);
  }
  std::visit([&](auto& body) { On(command.client_seq, body); }, command.body);
  Advance();
  Publish();
}

void Session::On(uint64_t seq, PreparedInput& input) {
  const absl::Status status = CheckAppend(input);
  if (!status.ok()) return RejectInput(seq, input, status);
  Answer(seq, InputQueued{.client_seq = seq,
                          .tokens = static_cast<uint64_t>(TokensAhead(input))});
  WaitingItem item{.client_seq = seq};
  if (input.then_generate) {
    item.turn = Request(seq, *std::move(input.then_generate));
  }
  const bool continues = input.continues;
  more_follows_ = input.more_follows;
  text_rejected_ = false;
  item.input = std::move(input);
  const uint64_t before = std::exchange(last_piece_, seq);
  if (continues) {
    waiting_.PushPiece(std::move(item), before, text_open_);
  } else {
    waiting_.Push(std::move(item), writing());
  }
}

absl::Status Session::CheckAppend(const PreparedInput& input) const {
  if (input.continues && text_rejected_) return PreviousRejected();
  if (input.then_generate) {
    absl::Status status = CheckDraining();
    if (!status.ok()) return status;
  }
  if (!input.continues) {
    const auto& only = input.only_in_turn_started_by;
    if (only && !(turn_ && turn_->request.started_by == *only) &&
        !waiting_.HasTurnOf(*only)) {
      return NoTurnOf(Reason::kTurnOver, *only);
    }
    const auto* at = std::get_if<AtTextPosition>(&input.placement);
    if (at && at->position < static_cast<uint64_t>(length())) {
      return errors::InvalidField(
          "at_text_position",
          absl::StrCat("at_text_position=", at->position,
                       " has passed; the text has ", length(), " tokens"));
    }
    if (!tail_.in_message() && !writing() && !input.parts.front().is_message) {
      return NotInMessage();
    }
  }
  for (size_t i = 1; i < input.parts.size(); ++i) {
    if (input.parts[i - 1].is_message && !input.parts[i].is_message) {
      return NotInMessage();
    }
  }
  return CheckRoom(TokensAhead(input), waiting_.tokens());
}

absl::Status Session::CheckRoom(int64_t tokens, int64_t waiting) const {
  if (!text_limit_ || length() + waiting + tokens <= *text_limit_) {
    return absl::OkStatus();
  }
  return Refusal(
      Reason::kCacheFull,
      absl::StrCat("append ", tokens, " tokens: policy '",
                   policy_.policy->Name(), "' has room for ",
                   std::max<int64_t>(0, *text_limit_ - length() - waiting),
                   " of ", *text_limit_,
                   "; reset the session, or open one with a bounded policy, "
                   "such as 'sinks'"));
}

absl::Status Session::CheckDraining() const {
  if (!draining_) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, Reason::kDraining,
                   "the server is about to end and takes no new turns; open a "
                   "session with another one",
                   {.retry_after = absl::Seconds(1)});
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

void Session::On(uint64_t seq, StartTurn& start) {
  if (writing()) {
    return Reject(seq, Refusal(Reason::kTurnRunning,
                               "a turn is running or waiting already; "
                               "interrupt it, or wait for turn_finished"));
  }
  const absl::Status draining = CheckDraining();
  if (!draining.ok()) return Reject(seq, draining);
  if (length() == 0 && waiting_.empty() && tail_.AssistantPrefix().empty()) {
    return Reject(
        seq, errors::InvalidField(
                 "generate", "there is no text to go on from; append some"));
  }
  waiting_.Push({.client_seq = seq,
                 .input = std::nullopt,
                 .turn = Request(seq, std::move(start))},
                /*writing=*/false);
}

void Session::On(uint64_t seq, Interrupt& interrupt) {
  if (!writing()) {
    return Reject(seq, Refusal(Reason::kNoTurn,
                               "no turn is running; it may just have ended"));
  }
  const auto& meant = interrupt.started_by;
  if (turn_ && (!meant || turn_->request.started_by == *meant)) {
    if (interrupt.keep_until_text_position) {
      CutTo(*interrupt.keep_until_text_position);
    }
    FinishTurn(FinishReason::kInterrupted);
  } else if (std::optional<TurnRequest> turn = waiting_.TakeTurn(meant)) {
    FinishWaiting(*turn, FinishReason::kInterrupted);
  } else {
    return Reject(seq, NoTurnOf(Reason::kNoTurn, *meant));
  }
  if (interrupt.drop_pending_input) DropWaiting(FinishReason::kInterrupted);
}

void Session::On(uint64_t seq, UpdateOptions& update) {
  engine::GenerationOptions& options = options_.generation;
  if (update.sampling) options.sampling = *std::move(update.sampling);
  if (update.stopping) options.stopping = *std::move(update.stopping);
  if (update.response) options.response = *update.response;
  AnswerOptions(seq);
}

void Session::On(uint64_t seq, ResetSession&) {
  if (turn_) FinishTurn(FinishReason::kInterrupted);
  DropWaiting(FinishReason::kInterrupted);
  if (more_follows_) BreakText(/*more_follows=*/true);
  sequence_->Clear();
  reading_.clear();
  recent_.Clear();
  reporter_.Reset();
  tail_.OnReset();
  ReadSystemBlock();
  AnswerOptions(seq);
}

void Session::On(uint64_t seq, CloseSession&) { Close(CloseReason::kClient); }

void Session::On(uint64_t seq, HalfClose&) {
  half_closed_ = true;
  EndText();
}

void Session::On(uint64_t seq, Refused& refused) {
  Reject(seq, refused.status);
  if (refused.append) BreakText(refused.more_follows);
}

void Session::On(uint64_t seq, Repeated&) {
  if (const EventBody* answer = answers_.Find(seq)) {
    const bool options = std::holds_alternative<OptionsUpdated>(*answer);
    return Emit(options ? OptionsUpdated{options_} : *answer);
  }
  if (answers_.Reaches(seq)) return;  // answered by what it did
  Emit(Rejected{.client_seq = seq,
                .error = MakeError(
                    absl::StatusCode::kFailedPrecondition, Reason::kSequenceGap,
                    absl::StrCat("client_seq=", seq,
                                 " was used; its answer is "
                                 "no longer kept"),
                    {.metadata = {{"expected_seq",
                                   absl::StrCat(answers_.last() + 1)}}})});
}

void Session::On(uint64_t seq, OutOfOrder& gap) {
  Emit(Rejected{.client_seq = seq, .error = gap.status});
}

// ---- What comes next ----

void Session::Advance() {
  while (sequence_) {
    if (TurnCanStart()) {
      StartTurnNow();
      continue;
    }
    WaitingItems::Queue* const queue = NextQueue();
    if (queue == nullptr) break;
    Place(waiting_.Pop(queue));
  }
  if (!sequence_) return;
  UpdateWantedLogits();
  PauseWhileFull();
  CloseIfOver();
}

bool Session::TurnCanStart() const {
  return turn_ && !turn_->started && !text_open_ &&
         sequence_->pending_tokens() == 0;
}

// The queue whose first item has its turn now; null if all have to wait.
WaitingItems::Queue* Session::NextQueue() {
  if (sequence_->pending_tokens() >= context_.read_ahead_tokens) return nullptr;
  if (text_open_) return UnlessEmpty(waiting_.continuation());
  return turn_ ? NextInTurn() : NextOutsideTurns();
}

WaitingItems::Queue* Session::NextInTurn() {
  WaitingItems::Queue* const next_step = waiting_.next_step();
  if (!turn_->decodes()) {
    // Only a message can come before the turn starts: it ends it.
    const bool ends =
        !next_step->empty() && HasMessage(*next_step->front().input);
    return ends ? next_step : nullptr;
  }
  if (!turn_->writer->AtCharacterBoundary()) return nullptr;
  if (WaitingItems::Queue* due = waiting_.DueAt(length())) return due;
  if (next_step->empty()) return nullptr;
  const auto& only = next_step->front().input->only_in_turn_started_by;
  const bool meant_for_later = only && waiting_.HasTurnOf(*only);
  return meant_for_later ? nullptr : next_step;
}

WaitingItems::Queue* Session::NextOutsideTurns() {
  if (waiting_.turns() == 0) waiting_.EndNextSteps();
  if (WaitingItems::Queue* due = waiting_.DueAt(length())) return due;
  return UnlessEmpty(waiting_.after_turn());
}

void Session::Place(WaitingItem item) {
  if (item.input) {
    const absl::Status status = CheckPlace(*item.input);
    if (!status.ok()) {
      RejectInput(item.client_seq, *item.input, status);
      for (const WaitingItem& piece : waiting_.TakeContinuation()) {
        RejectInput(piece.client_seq, *piece.input, PreviousRejected());
      }
      return;
    }
    if (turn_ && HasMessage(*item.input)) FinishTurn(FinishReason::kInput);
    WriteInput(item.client_seq, *item.input);
  }
  if (!item.turn) return;
  if (turn_) {
    waiting_.Push({.client_seq = item.client_seq,
                   .input = std::nullopt,
                   .turn = std::move(item.turn)},
                  /*writing=*/true);
  } else {
    turn_.emplace();
    turn_->number = ++turns_;
    turn_->request = *std::move(item.turn);
  }
}

// What was right when the input came may have changed until it has its place.
absl::Status Session::CheckPlace(const PreparedInput& input) const {
  const auto& only = input.only_in_turn_started_by;
  const bool guarded =
      only && !std::holds_alternative<AfterTurn>(input.placement);
  if (guarded && !(turn_ && turn_->request.started_by == *only)) {
    return NoTurnOf(Reason::kTurnOver, *only);
  }
  if (!input.parts.front().is_message && !tail_.in_message()) {
    return NotInMessage();
  }
  ChatTail tail = tail_;
  return CheckRoom(static_cast<int64_t>(Render(input, &tail).size()), 0);
}

void Session::WriteInput(uint64_t seq, PreparedInput& input) {
  const bool in_turn = turn_ && turn_->decodes();
  if (in_turn) EmitText(turn_->writer->OnInput());
  const std::vector<int32_t> ids = Render(input, &tail_);
  const int64_t begin = length();
  Emit(InputAccepted{.client_seq = seq,
                     .text_position = static_cast<uint64_t>(begin),
                     .tokens = ids.size(),
                     .turn = in_turn ? turn_->number : 0});
  sequence_->Append(ids);
  recent_.Add(ids);
  total_.input_tokens += ids.size();
  context_.credit->Return(input.bytes);
  if (!ids.empty()) {
    const absl::Time now = context_.now();
    reading_.push_back({seq, {begin, length()}, now, now});
  }
  text_open_ = input.more_follows;
  if (in_turn) turn_->earliest_cut = length();
}

void Session::StartTurnNow() {
  ActiveTurn& turn = *turn_;
  const bool continued = tail_.continues() && !turn.request.new_message;
  std::vector<int32_t> prefix;
  if (!continued) prefix = tail_.AssistantPrefix();
  if (AtCapacity(static_cast<int64_t>(prefix.size()))) {
    return FinishTurn(FinishReason::kCapacity);
  }
  if (length() == 0 && prefix.empty()) {
    return FinishTurn(
        FinishReason::kError,
        errors::InvalidField("generate", "there is no text to go on from"));
  }
  turn.started = true;
  turn.start_time = context_.now();
  Emit(TurnStarted{.turn = turn.number,
                   .started_by = turn.request.started_by,
                   .text_position = static_cast<uint64_t>(length()),
                   .prefix_token_ids = prefix,
                   .continued = continued});
  sequence_->Append(prefix);
  recent_.Add(prefix);
  total_.input_tokens += prefix.size();
  tail_.OnTurnStarted();
  turn.earliest_cut = length();
  turn.writer = std::make_unique<engine::Turn>(
      turn.request.options,
      engine::Turn::Context{.turn = turn.number,
                            .tokenizer = context_.tokenizer,
                            .recent = &recent_,
                            .started = turn.start_time});
}

// Asking once more while nothing is pending computes the last token again: its
// logits were not wanted, or went unused.
void Session::UpdateWantedLogits() {
  const bool wants = turn_ && turn_->decodes() && !text_open_;
  const Logits wanted = wants ? Logits::kLast : Logits::kNone;
  const bool again = wants && sequence_->pending_tokens() == 0;
  if (wanted == wanted_ && !again) return;
  wanted_ = wanted;
  sequence_->WantLogits(wanted);
}

// After a half-close: everything that can be read is read, and no turn waits.
void Session::CloseIfOver() {
  if (!half_closed_ || turn_ || !waiting_.only_positioned() ||
      sequence_->pending_tokens() > 0) {
    return;
  }
  for (const WaitingItem& item : waiting_.TakeAll()) {
    RejectInput(
        item.client_seq, *item.input,
        errors::InvalidField("at_text_position",
                             absl::StrCat("the text ends with ", length(),
                                          " tokens, before that position")));
  }
  Close(CloseReason::kClient);
}

// ---- A turn ----

void Session::OnRows(int64_t first, int64_t count,
                     absl::Span<const float> logits) {
  last_active_ = context_.now();
  peak_resident_ = sequence_->peak_resident_tokens();
  FinishReading(first + count);
  // Input that has its turn now goes before the next token.
  if (turn_ && turn_->decodes() && !logits.empty() && NextQueue() == nullptr) {
    Decode(logits);
  } else {
    Report(TextRead());
  }
  Advance();
  Publish();
}

void Session::Decode(absl::Span<const float> logits) {
  if (AtCapacity(0)) return FinishTurn(FinishReason::kCapacity);
  ActiveTurn& turn = *turn_;
  const engine::TurnStep step = turn.writer->Next(logits, last_active_);
  if (step.token_id < 0) {
    EmitText(step.text);
    return FinishTurn(
        FinishReason::kError,
        MakeError(absl::StatusCode::kInternal, Reason::kNonfiniteLogits,
                  "the model's logits are not finite"));
  }
  if (turn.generated++ == 0) turn.first_token = last_active_;
  turn.last_token = last_active_;
  ++total_.generated_tokens;
  Output output{.turn = turn.number,
                .text_position = static_cast<uint64_t>(length()),
                .token_ids = {step.token_id}};
  output.text = step.text;
  if (step.logprobs) output.logprobs.push_back(*step.logprobs);
  Emit(std::move(output));
  sequence_->Append({&step.token_id, 1});
  if (step.finished) {
    return FinishTurn(*step.finished, absl::OkStatus(), step.stop_match);
  }
  Report(TextRead());
}

// Text that was held back; its tokens are told already.
void Session::EmitText(std::string text) {
  if (text.empty()) return;
  Output output{.turn = turn_->number,
                .text_position = static_cast<uint64_t>(length())};
  output.text = std::move(text);
  Emit(std::move(output));
}

bool Session::AtCapacity(int64_t more) const {
  return text_limit_ && length() + more >= *text_limit_;
}

void Session::FinishTurn(FinishReason reason, const absl::Status& error,
                         std::optional<engine::StopMatch> match) {
  if (reason == FinishReason::kCapacity &&
      policy_.on_full == cache::OnFull::kError) {
    return FinishTurn(
        FinishReason::kError,
        Refusal(Reason::kCacheFull,
                absl::StrCat("the text has ", length(), " of the ",
                             *text_limit_, " tokens that policy '",
                             policy_.policy->Name(), "' holds")));
  }
  if (turn_->decodes()) EmitText(turn_->writer->Flush());
  turn_->writer.reset();
  if (turn_->started) tail_.OnTurnFinished(reason);
  UpdateWantedLogits();
  ReportAll(TextRead());
  TurnFinished finished{.turn = turn_->number, .reason = reason};
  finished.stop_match = std::move(match);
  finished.usage = TakeTurnUsage();
  finished.kept_until = static_cast<uint64_t>(length());
  finished.error = error;
  Emit(std::move(finished));
  turn_.reset();
  waiting_.EndNextSteps();
}

// Cuts the text of the turn back to `keep_until` tokens, as far as the cache
// goes back, and not before what was read in it.
void Session::CutTo(uint64_t keep_until) {
  if (!turn_->decodes() || keep_until >= static_cast<uint64_t>(length())) {
    return;
  }
  const int64_t target =
      std::max({static_cast<int64_t>(keep_until), turn_->earliest_cut,
                sequence_->EarliestCut()});
  const int64_t cut = length() - target;
  if (cut <= 0 || !sequence_->Truncate(target).ok()) return;
  turn_->writer.reset();  // what it held back is cut off too
  recent_.RemoveLast(cut);
}

void Session::FinishWaiting(TurnRequest request, FinishReason reason,
                            const absl::Status& error) {
  TurnFinished finished{.turn = ++turns_, .reason = reason};
  finished.usage = UsageSince(total_);
  finished.usage.evicted_tokens = 0;
  finished.usage.queued = context_.now() - request.requested;
  finished.kept_until = static_cast<uint64_t>(length());
  finished.error = error;
  Emit(std::move(finished));
}

void Session::DropWaiting(FinishReason reason, const absl::Status& error) {
  bool breaks = false;
  for (WaitingItem& item : waiting_.TakeAll()) {
    if (item.input) {
      context_.credit->Return(item.input->bytes);
      breaks |= more_follows_ && item.client_seq == last_piece_;
    }
    if (item.turn) FinishWaiting(*std::move(item.turn), reason, error);
  }
  if (breaks) BreakText(/*more_follows=*/true);
}

// ---- Reading ----

int64_t Session::TextRead() const {
  if (reading_.empty()) return length();
  return std::max(sequence_->computed_tokens(), reading_.front().range.begin);
}

void Session::FinishReading(int64_t computed) {
  while (!reading_.empty() && reading_.front().range.end <= computed) {
    ReadingInput input = reading_.front();
    reading_.pop_front();
    ReportAll(TextRead());
    ReportProgress(input, computed);
  }
  if (!reading_.empty()) ReportProgress(reading_.front(), computed);
}

void Session::ReportProgress(ReadingInput& input, int64_t computed) {
  const int64_t end = std::min(computed, input.range.end);
  const bool ended = end == input.range.end;
  const int64_t forgotten =
      reporter_.ForgottenTokens({input.range.begin, end}, computed);
  const bool slow = last_active_ - input.last_progress >= kProgressInterval;
  const bool was_slow = input.last_progress > input.begun;
  if (!slow && !(ended && (forgotten > 0 || was_slow))) return;
  input.last_progress = last_active_;
  Emit(InputProgress{.client_seq = input.client_seq,
                     .tokens_read = static_cast<uint64_t>(
                         std::max<int64_t>(0, end - input.range.begin)),
                     .tokens_total = static_cast<uint64_t>(input.range.size()),
                     .forgotten_tokens = static_cast<uint64_t>(forgotten)});
}

void Session::Report(int64_t length) {
  auto update =
      reporter_.Advance(length, response().cache_update_interval_tokens);
  if (update) Emit(*std::move(update));
}

void Session::ReportAll(int64_t length) {
  if (auto update = reporter_.ReportAll(length)) Emit(*std::move(update));
}

// ---- The end ----

// The cache may hold anything now, so the session ends with the step.
void Session::OnError(const absl::Status& status) {
  Close(CloseReason::kError,
        MakeError(absl::StatusCode::kInternal, Reason::kDeviceError,
                  "the backend failed to compute a step"));
}

void Session::Close(CloseReason reason, const absl::Status& error) {
  if (!sequence_) return;
  const FinishReason finish = !error.ok() ? FinishReason::kError
                              : reason == CloseReason::kDrained
                                  ? FinishReason::kDrained
                                  : FinishReason::kInterrupted;
  if (turn_) FinishTurn(finish, error);
  DropWaiting(finish, error);
  Emit(Closed{.reason = reason, .error = error, .usage = UsageSince({})});
  Publish();
  sequence_.reset();
  {
    absl::MutexLock lock(&mutex_);
    snapshot_.state = State::kClosed;
  }
  context_.on_closed(reason);
}

void Session::StartDrain(const GoAway& go_away) {
  if (!sequence_ || std::exchange(draining_, true)) return;
  Emit(go_away);
  PauseWhileFull();
  Publish();
}

void Session::OnResumed(bool gap) {
  if (!sequence_) return;
  last_active_ = context_.now();
  Emit(Resumed{.gap = gap,
               .text_position = static_cast<uint64_t>(length()),
               .state = state(),
               .turn = turn_ ? turn_->number : 0});
  PauseWhileFull();
  Publish();
}

// ---- Small things ----

void Session::Emit(EventBody event) {
  if (context_.on_event) context_.on_event(event);
  if (auto* output = std::get_if<Output>(&event)) {
    const engine::ResponseOptions& wanted = response();
    if (!wanted.token_ids && !wanted.text && output->logprobs.empty()) return;
    if (!wanted.token_ids) {
      output->unnamed_tokens = output->token_ids.size();
      output->token_ids.clear();
    }
  }
  context_.log->Append(std::move(event));
}

void Session::Answer(uint64_t seq, EventBody answer) {
  answers_.Remember(seq, answer);
  Emit(std::move(answer));
}

// Sent twice it is answered with the options in force then: none are kept.
void Session::AnswerOptions(uint64_t seq) {
  answers_.Remember(seq, OptionsUpdated{});
  Emit(OptionsUpdated{options_});
}

void Session::Reject(uint64_t seq, const absl::Status& error) {
  Answer(seq, Rejected{.client_seq = seq, .error = error});
}

void Session::RejectInput(uint64_t seq, const PreparedInput& input,
                          const absl::Status& error) {
  context_.credit->Return(input.bytes);
  Reject(seq, error);
  if (input.continues || input.more_follows) BreakText(input.more_follows);
}

void Session::BreakText(bool more_follows) {
  EndText();
  text_rejected_ = more_follows;
}

void Session::EndText() {
  more_follows_ = false;
  waiting_.EndText(last_piece_);
  if (waiting_.continuation()->empty()) text_open_ = false;
}

void Session::PauseWhileFull() {
  if (!sequence_ || paused_since_ || !context_.log->Full()) return;
  sequence_->SetPaused(true);
  paused_since_ = context_.now();
  if (writing()) ++times_paused_;
  OnDrained();  // if it has drained before the pause
}

void Session::OnDrained() {
  if (!sequence_ || !paused_since_ || context_.log->Full()) return;
  paused_since_.reset();
  sequence_->SetPaused(false);
  Publish();
}

int64_t Session::TokensAhead(const PreparedInput& input) const {
  ChatTail tail = tail_;
  if (writing() || !waiting_.empty()) tail.OnMessage();
  return static_cast<int64_t>(Render(input, &tail).size());
}

bool Session::waits_for_client() const {
  return sequence_->pending_tokens() == 0 && (!turn_ || text_open_);
}

State Session::state() const {
  if (!sequence_) return State::kClosed;
  if (writing()) return paused_since_ ? State::kPaused : State::kWriting;
  const bool reads =
      sequence_->pending_tokens() > 0 || !waiting_.only_positioned();
  return reads ? State::kReading : State::kIdle;
}

const engine::ResponseOptions& Session::response() const {
  return turn_ ? turn_->request.options.response : options_.generation.response;
}

Usage Session::UsageSince(const Counts& since) const {
  Usage usage;
  const int64_t visible = reporter_.VisibleTokens(TextRead());
  usage.input_tokens = total_.input_tokens - since.input_tokens;
  usage.generated_tokens = total_.generated_tokens - since.generated_tokens;
  usage.evicted_tokens =
      static_cast<uint64_t>(reporter_.total_evicted()) - since.evicted_tokens;
  usage.text_position = static_cast<uint64_t>(length());
  usage.visible_tokens = static_cast<uint64_t>(visible);
  usage.peak_resident_tokens = static_cast<uint64_t>(peak_resident_);
  return usage;
}

Usage Session::TakeTurnUsage() {
  Usage usage = UsageSince(at_last_turn_);
  const absl::Time begun = turn_->started ? turn_->start_time : context_.now();
  usage.queued = begun - turn_->request.requested;
  if (turn_->generated > 0) {
    usage.time_to_first_token = turn_->first_token - turn_->request.requested;
    usage.decode = turn_->last_token - turn_->first_token;
  }
  at_last_turn_ = total_;
  at_last_turn_.evicted_tokens =
      static_cast<uint64_t>(reporter_.total_evicted());
  return usage;
}

Session::Snapshot Session::snapshot() const {
  absl::MutexLock lock(&mutex_);
  return snapshot_;
}

void Session::Publish() {
  if (!sequence_) return;
  Snapshot now{.state = state(),
               .usage = UsageSince({}),
               .last_active = last_active_,
               .paused_since = paused_since_,
               .waits_for_client = waits_for_client(),
               .times_paused = times_paused_};
  absl::MutexLock lock(&mutex_);
  snapshot_ = std::move(now);
}

}  // namespace millrace::session
