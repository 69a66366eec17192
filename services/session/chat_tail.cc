#include "services/session/chat_tail.h"

namespace millrace::session {
namespace {

void Add(const std::vector<int32_t>& ids, std::vector<int32_t>* out) {
  out->insert(out->end(), ids.begin(), ids.end());
}

}  // namespace

std::vector<int32_t> ChatTail::BeforeMessage() const {
  std::vector<int32_t> ids;
  if (format_ == nullptr) return ids;
  if (end_ == End::kOpen) Add(format_->EndMessage(), &ids);
  if (end_ != End::kBetween) Add(format_->ClosingGlue(), &ids);
  return ids;
}

std::vector<int32_t> ChatTail::AssistantPrefix() const {
  std::vector<int32_t> ids = BeforeMessage();
  if (format_ != nullptr) Add(format_->AssistantHeader(), &ids);
  return ids;
}

void ChatTail::OnMessage() { end_ = End::kEnded; }

void ChatTail::OnTurnStarted() { end_ = End::kOpen; }

void ChatTail::OnTurnFinished(engine::FinishReason reason) {
  using engine::FinishReason;
  if (reason == FinishReason::kEndOfTurn) end_ = End::kEnded;
  continues_ = reason == FinishReason::kInterrupted ||
               reason == FinishReason::kMaxTokens ||
               reason == FinishReason::kTimeLimit;
}

std::vector<int32_t> Render(const PreparedInput& input, ChatTail* tail) {
  std::vector<int32_t> ids;
  for (const InputPart& part : input.parts) {
    if (part.is_message) {
      Add(tail->BeforeMessage(), &ids);
      tail->OnMessage();
    }
    Add(part.ids, &ids);
  }
  return ids;
}

}  // namespace millrace::session
