#include "services/session/active_turn.h"

#include <algorithm>
#include <utility>

#include "services/session/refusals.h"

namespace millrace::session {

using engine::FinishReason;

ActiveTurn::ActiveTurn(uint64_t number, TurnRequest request,
                       const Surroundings& around)
    : number_(number),
      request_(std::move(request)),
      tokenizer_(around.tokenizer),
      text_(around.text),
      outbox_(around.outbox) {}

std::optional<TurnEnd> ActiveTurn::Start(absl::Time now) {
  const bool continued = text_->tail().continues() && !request_.new_message;
  std::vector<int32_t> prefix;
  if (!continued) prefix = text_->tail().AssistantPrefix();
  if (text_->AtCapacity(static_cast<int64_t>(prefix.size()))) {
    return TurnEnd{FinishReason::kCapacity};
  }
  if (text_->length() == 0 && prefix.empty()) {
    return TurnEnd{FinishReason::kError, StillNoText()};
  }
  started_ = true;
  start_time_ = now;
  outbox_->Emit(
      TurnStarted{.turn = number_,
                  .started_by = request_.started_by,
                  .text_position = static_cast<uint64_t>(text_->length()),
                  .prefix_token_ids = prefix,
                  .continued = continued});
  text_->SetSpeculation(request_.options.sampling.speculation);
  text_->AppendPrefix(prefix);
  text_->tail().OnTurnStarted();
  earliest_cut_ = text_->length();
  writer_ = std::make_unique<engine::Turn>(
      request_.options, engine::Turn::Context{.turn = number_,
                                              .tokenizer = tokenizer_,
                                              .recent = text_->recent(),
                                              .started = start_time_});
  return std::nullopt;
}

std::optional<TurnEnd> ActiveTurn::Decode(const engine::NextToken& next,
                                          absl::Time now) {
  if (text_->AtCapacity(0)) return TurnEnd{FinishReason::kCapacity};
  const engine::TurnStep step = writer_->Next(next, now);
  if (step.token_id < 0) {
    EmitText(step.text);
    return TurnEnd{FinishReason::kError, NotFinite()};
  }
  if (generated_++ == 0) first_token_ = now;
  last_token_ = now;
  Output output{.turn = number_,
                .text_position = static_cast<uint64_t>(text_->length()),
                .token_ids = {step.token_id}};
  output.text = step.text;
  if (step.logprobs) output.logprobs.push_back(*step.logprobs);
  outbox_->EmitOutput(std::move(output), response());
  text_->AppendPicked(step.token_id);
  if (!step.finished) return std::nullopt;
  return TurnEnd{*step.finished, absl::OkStatus(), step.stop_match};
}

void ActiveTurn::BeforeInput() { EmitText(writer_->OnInput()); }

// Text that was held back; its tokens are told already.
void ActiveTurn::EmitText(std::string text) {
  if (text.empty()) return;
  Output output{.turn = number_,
                .text_position = static_cast<uint64_t>(text_->length())};
  output.text = std::move(text);
  outbox_->EmitOutput(std::move(output), response());
}

void ActiveTurn::CutTo(uint64_t keep_until) {
  if (!decodes() || keep_until >= static_cast<uint64_t>(text_->length())) {
    return;
  }
  const int64_t target =
      std::max(static_cast<int64_t>(keep_until), earliest_cut_);
  if (text_->CutTo(target)) writer_.reset();  // what it held back is cut, too
}

void ActiveTurn::Finish(TurnEnd end, absl::Time now) {
  if (end.reason == FinishReason::kCapacity &&
      text_->policy().on_full == cache::OnFull::kError) {
    end = {FinishReason::kError, text_->Full()};
  }
  if (decodes()) EmitText(writer_->Flush());
  writer_.reset();
  if (started_) text_->tail().OnTurnFinished(end.reason);
  text_->WantLogits(false);
  text_->ReportAll();
  outbox_->Emit(
      TurnFinished{.turn = number_,
                   .reason = end.reason,
                   .stop_match = std::move(end.match),
                   .usage = TakeUsage(now),
                   .kept_until = static_cast<uint64_t>(text_->length()),
                   .error = std::move(end.error)});
}

Usage ActiveTurn::TakeUsage(absl::Time now) {
  Usage usage = text_->TakeTurnUsage();
  usage.queued = (started_ ? start_time_ : now) - request_.requested;
  if (generated_ > 0) {
    usage.time_to_first_token = first_token_ - request_.requested;
    usage.decode = last_token_ - first_token_;
  }
  return usage;
}

}  // namespace millrace::session
