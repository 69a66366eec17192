#include "services/session/composer.h"

#include <utility>
#include <vector>

#include "services/session/chat_tail.h"
#include "services/session/refusals.h"

namespace millrace::session {

using engine::FinishReason;

// ---- What is asked for ----

void Composer::AddInput(uint64_t seq, PreparedInput input,
                        std::optional<TurnRequest> turn) {
  const bool continues = input.continues;
  if (!continues) text_seq_ = seq;
  more_follows_ = input.more_follows;
  text_rejected_ = false;
  const uint64_t before = std::exchange(last_piece_, seq);
  WaitingItem item{.client_seq = seq,
                   .text_seq = text_seq_,
                   .input = std::move(input),
                   .turn = std::move(turn)};
  if (continues) {
    waiting_.PushPiece(std::move(item), before, text_open_);
  } else {
    waiting_.Push(std::move(item), writing());
  }
}

void Composer::AddTurn(uint64_t seq, TurnRequest request) {
  waiting_.Push({.client_seq = seq, .turn = std::move(request)},
                /*writing=*/false);
}

void Composer::RejectInput(uint64_t seq, const PreparedInput& input,
                           const absl::Status& error) {
  GiveBack(seq, input, error);
  if (input.continues || input.more_follows) BreakText(input.more_follows);
}

void Composer::GiveBack(uint64_t seq, const PreparedInput& input,
                        const absl::Status& error) {
  context_.credit->Return(input.bytes);
  context_.outbox->Reject(seq, error);
}

void Composer::BreakText(bool more_follows) {
  EndText();
  text_rejected_ = more_follows;
}

void Composer::EndText() {
  more_follows_ = false;
  waiting_.EndText(last_piece_);
  if (waiting_.continuation()->empty()) text_open_ = false;
}

bool Composer::Interrupt(std::optional<uint64_t> started_by,
                         std::optional<uint64_t> keep_until,
                         bool drop_waiting) {
  const bool runs =
      turn_ && (!started_by || turn_->started_by() == *started_by);
  std::optional<TurnRequest> waits;
  if (!runs) {
    waits = waiting_.TakeTurn(started_by);
    if (!waits) return false;
  }
  std::vector<WaitingItem> dropped;
  if (drop_waiting) dropped = TakeWaiting();
  if (runs && keep_until) turn_->CutTo(*keep_until);
  runs ? FinishTurn({FinishReason::kInterrupted})
       : FinishWaiting(*waits, {FinishReason::kInterrupted});
  if (drop_waiting) EndDropped(dropped, {FinishReason::kInterrupted});
  return true;
}

// The queue has room again before the client hears of any end, who may send
// more at once.
std::vector<WaitingItem> Composer::TakeWaiting() {
  std::vector<WaitingItem> items = waiting_.TakeAll();
  for (const WaitingItem& item : items) {
    if (item.input) context_.credit->Return(item.input->bytes);
  }
  return items;
}

void Composer::EndDropped(const std::vector<WaitingItem>& items,
                          const TurnEnd& end) {
  bool breaks = false;
  for (const WaitingItem& item : items) {
    breaks |= item.input && more_follows_ && item.client_seq == last_piece_;
    if (item.turn) FinishWaiting(*item.turn, end);
  }
  if (breaks) BreakText(/*more_follows=*/true);
  if (!more_follows_) text_open_ = false;  // its last piece was dropped
}

void Composer::Stop(const TurnEnd& end) {
  const std::vector<WaitingItem> dropped = TakeWaiting();
  if (turn_) FinishTurn(end);
  EndDropped(dropped, end);
}

void Composer::Reset() {
  Stop({FinishReason::kInterrupted});
  if (more_follows_) BreakText(/*more_follows=*/true);
  text().Reset();
}

// ---- What comes of it ----

void Composer::Advance() {
  while (true) {
    if (TurnCanStart()) {
      std::optional<TurnEnd> end = turn_->Start(context_.now());
      if (end) FinishTurn(*std::move(end));
    } else if (WaitingItems::Queue* const queue = NextQueue()) {
      Place(waiting_.Pop(queue));
    } else {
      break;
    }
  }
  text().WantLogits(turn_ && turn_->decodes() && !text_open_);
}

std::optional<backends::RowSampling> Composer::HowToPick(
    int unknown_tokens) const {
  if (!turn_ || !turn_->decodes()) return std::nullopt;
  return turn_->HowToPick(unknown_tokens);
}

void Composer::OnRows(int64_t computed, const engine::NextToken& next,
                      absl::Time now, int64_t interval_tokens) {
  text().OnRows(computed, now);
  const bool decodes = turn_ && turn_->decodes() && !next.empty();
  // Input that has its turn now goes before the next token.
  if (decodes && NextQueue() == nullptr) {
    std::optional<TurnEnd> end = turn_->Decode(next, now);
    if (end) return FinishTurn(*std::move(end));
  }
  text().Report(turn_ ? turn_->response().cache_update_interval_tokens
                      : interval_tokens);
}

bool Composer::Over() const {
  return !turn_ && waiting_.only_positioned() && text().readable_tokens() == 0;
}

void Composer::RejectRest() {
  for (const WaitingItem& item : waiting_.TakeAll()) {
    GiveBack(item.client_seq, *item.input, PositionNotReached(text().length()));
  }
}

bool Composer::TurnCanStart() const {
  return turn_ && !turn_->started() && !text_open_ &&
         text().readable_tokens() == 0;
}

// The queue whose first item has its turn now; null if all have to wait.
WaitingItems::Queue* Composer::NextQueue() {
  if (text().pending_tokens() >= context_.read_ahead_tokens) return nullptr;
  return NextToPlace(text_end(), text().length(), &waiting_);
}

TextEnd Composer::text_end() const {
  if (text_open_) return TextEnd::kInsideText;
  if (!turn_) return TextEnd::kNoTurn;
  if (!turn_->decodes()) return TextEnd::kTurnWaits;
  return turn_->AtCharacterBoundary() ? TextEnd::kBetweenCharacters
                                      : TextEnd::kWithinCharacter;
}

void Composer::Place(WaitingItem item) {
  if (item.input) {
    const absl::Status status = CheckPlace(*item.input, situation());
    if (!status.ok()) return RejectPlace(item, status);
    if (turn_ && HasMessage(*item.input)) FinishTurn({FinishReason::kInput});
    WriteInput(item.client_seq, *item.input);
  }
  if (item.turn) PlaceTurn(item.client_seq, *std::move(item.turn));
}

// Another text may be coming in by now: it goes on.
void Composer::RejectPlace(const WaitingItem& item, const absl::Status& error) {
  GiveBack(item.client_seq, *item.input, error);
  for (const WaitingItem& piece : waiting_.TakeContinuation()) {
    GiveBack(piece.client_seq, *piece.input, PreviousRejected());
  }
  text_open_ = false;
  if (more_follows_ && item.text_seq == text_seq_) {
    BreakText(/*more_follows=*/true);
  }
}

void Composer::PlaceTurn(uint64_t seq, TurnRequest request) {
  if (turn_) {  // one at a time
    waiting_.Push({.client_seq = seq, .turn = std::move(request)},
                  /*writing=*/true);
    return;
  }
  turn_.emplace(++turns_, std::move(request),
                ActiveTurn::Surroundings{.tokenizer = context_.tokenizer,
                                         .text = context_.text,
                                         .outbox = context_.outbox});
}

void Composer::WriteInput(uint64_t seq, const PreparedInput& input) {
  const bool in_turn = turn_ && turn_->decodes();
  if (in_turn) turn_->BeforeInput();
  const std::vector<int32_t> ids = Render(input, &text().tail());
  // Before the client hears of it, who may send more at once.
  context_.credit->Return(input.bytes);
  context_.outbox->Emit(
      InputAccepted{.client_seq = seq,
                    .text_position = static_cast<uint64_t>(text().length()),
                    .tokens = ids.size(),
                    .turn = in_turn ? turn_->number() : 0});
  text().AppendInput(seq, ids, context_.now());
  text_open_ = input.more_follows;
  if (in_turn) turn_->AfterInput();
}

void Composer::FinishTurn(TurnEnd end) {
  turn_->Finish(std::move(end), context_.now());
  turn_.reset();
  waiting_.EndNextSteps();
}

void Composer::FinishWaiting(const TurnRequest& request, const TurnEnd& end) {
  TurnFinished finished{.turn = ++turns_, .reason = end.reason};
  finished.usage = text().EmptyTurnUsage();
  finished.usage.queued = context_.now() - request.requested;
  finished.kept_until = static_cast<uint64_t>(text().length());
  finished.error = end.error;
  context_.outbox->Emit(std::move(finished));
}

// ---- How it is ----

bool Composer::reading() const {
  return text().readable_tokens() > 0 || !waiting_.only_positioned();
}

bool Composer::waits_for_client() const {
  return text().readable_tokens() == 0 && (!turn_ || text_open_);
}

bool Composer::NothingToGoOnFrom() const {
  return text().length() == 0 && waiting_.empty() &&
         text().tail().AssistantPrefix().empty();
}

InputSituation Composer::situation() const {
  InputSituation situation{
      .text = text(), .waiting = waiting_, .text_rejected = text_rejected_};
  if (turn_) situation.turn_of = turn_->started_by();
  return situation;
}

}  // namespace millrace::session
