#include "services/session/outbox.h"

#include <utility>

#include "services/session/refusals.h"

namespace millrace::session {

void Outbox::Emit(EventBody event) {
  if (on_event_) on_event_(event);
  log_->Append(std::move(event));
}

void Outbox::EmitOutput(Output output, const engine::ResponseOptions& wanted) {
  if (on_event_) on_event_(output);
  if (!wanted.token_ids && !wanted.text && output.logprobs.empty()) return;
  if (!wanted.token_ids) {
    output.unnamed_tokens = output.token_ids.size();
    output.token_ids.clear();
  }
  log_->Append(std::move(output));
}

void Outbox::Answer(uint64_t client_seq, EventBody answer) {
  answers_.Remember(client_seq, answer);
  Emit(std::move(answer));
}

void Outbox::AnswerOptions(uint64_t client_seq,
                           const EffectiveOptions& options) {
  answers_.Remember(client_seq, OptionsUpdated{});
  Emit(OptionsUpdated{options});
}

void Outbox::Reject(uint64_t client_seq, const absl::Status& error) {
  Answer(client_seq, Rejected{.client_seq = client_seq, .error = error});
}

void Outbox::Repeat(uint64_t client_seq, const EffectiveOptions& options) {
  if (const EventBody* answer = answers_.Find(client_seq)) {
    const bool of_options = std::holds_alternative<OptionsUpdated>(*answer);
    return Emit(of_options ? OptionsUpdated{options} : *answer);
  }
  if (answers_.Reaches(client_seq)) return;  // answered by what it did
  Emit(Rejected{.client_seq = client_seq,
                .error = AnswerForgotten(client_seq, answers_.last() + 1)});
}

}  // namespace millrace::session
