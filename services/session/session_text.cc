#include "services/session/session_text.h"

#include <algorithm>

#include "services/session/refusals.h"

namespace millrace::session {
namespace {

using engine::Logits;

constexpr absl::Duration kProgressInterval = absl::Seconds(1);

}  // namespace

SessionText::SessionText(Options options, Outbox* outbox)
    : options_(std::move(options)),
      limit_(options_.policy.policy->MaxTextTokens()),
      outbox_(outbox),
      recent_(options_.recent_tokens),
      reporter_(options_.policy.policy, [this] { return sequence_->Held(); }),
      tail_(options_.chat_format) {}

// ---- It grows, and is cut ----

void SessionText::AppendSystemBlock() { AppendPrefix(options_.system_ids); }

void SessionText::AppendInput(uint64_t client_seq,
                              absl::Span<const int32_t> ids, absl::Time now) {
  const int64_t begin = length();
  AppendPrefix(ids);
  if (!ids.empty())
    reading_.push_back({client_seq, {begin, length()}, now, now});
}

void SessionText::AppendPrefix(absl::Span<const int32_t> ids) {
  sequence_->Append(ids);
  recent_.Add(ids);
  input_tokens_ += ids.size();
}

void SessionText::AppendPicked(int32_t id) {
  ++generated_tokens_;
  sequence_->Append({&id, 1});
}

bool SessionText::CutTo(int64_t length) {
  const int64_t target = std::max(length, sequence_->EarliestCut());
  const int64_t cut = this->length() - target;
  if (cut <= 0 || !sequence_->Truncate(target).ok()) return false;
  recent_.RemoveLast(cut);
  return true;
}

void SessionText::Reset() {
  sequence_->Clear();
  reading_.clear();
  recent_.Clear();
  reporter_.Reset();
  tail_.OnReset();
  AppendSystemBlock();
}

// ---- It is read ----

void SessionText::WantLogits(bool wanted) {
  const Logits which = wanted ? Logits::kLast : Logits::kNone;
  const bool again = wanted && pending_tokens() == 0;
  if (which == wanted_ && !again) return;
  wanted_ = which;
  sequence_->WantLogits(which);
}

void SessionText::OnRows(int64_t computed, absl::Time now) {
  peak_resident_ = sequence_->peak_resident_tokens();
  while (!reading_.empty() && reading_.front().range.end <= computed) {
    ReadingInput input = reading_.front();
    reading_.pop_front();
    ReportAll();
    ReportProgress(input, computed, now);
  }
  if (!reading_.empty()) ReportProgress(reading_.front(), computed, now);
}

void SessionText::ReportProgress(ReadingInput& input, int64_t computed,
                                 absl::Time now) {
  const int64_t end = std::min(computed, input.range.end);
  const bool ended = end == input.range.end;
  const int64_t forgotten =
      reporter_.ForgottenTokens({input.range.begin, end}, computed);
  const bool slow = now - input.last_progress >= kProgressInterval;
  const bool was_slow = input.last_progress > input.begun;
  if (!slow && !(ended && (forgotten > 0 || was_slow))) return;
  input.last_progress = now;
  outbox_->Emit(InputProgress{
      .client_seq = input.client_seq,
      .tokens_read =
          static_cast<uint64_t>(std::max<int64_t>(0, end - input.range.begin)),
      .tokens_total = static_cast<uint64_t>(input.range.size()),
      .forgotten_tokens = static_cast<uint64_t>(forgotten)});
}

void SessionText::Report(int64_t interval_tokens) {
  auto update = reporter_.Advance(read_length(), interval_tokens);
  if (update) outbox_->Emit(*std::move(update));
}

void SessionText::ReportAll() {
  auto update = reporter_.ReportAll(read_length());
  if (update) outbox_->Emit(*std::move(update));
}

int64_t SessionText::read_length() const {
  if (reading_.empty()) return length();
  return std::max(sequence_->computed_tokens(), reading_.front().range.begin);
}

// ---- How long it may get ----

bool SessionText::AtCapacity(int64_t more) const {
  if (sequence_->room_to_write() <= more) return true;
  return length() + more >= limit_;
}

absl::Status SessionText::CheckRoom(int64_t tokens, int64_t waiting) const {
  const int64_t room = limit_ - length() - waiting;
  if (tokens <= room) return absl::OkStatus();
  return NoRoom(tokens, std::max<int64_t>(0, room), limit_,
                options_.policy.policy->Name());
}

absl::Status SessionText::Full() const {
  return TextFull(length(), options_.policy.policy->Name());
}

// ---- What it counts ----

SessionText::Counts SessionText::Count() const {
  return {.input_tokens = input_tokens_,
          .generated_tokens = generated_tokens_,
          .evicted_tokens = static_cast<uint64_t>(reporter_.total_evicted()),
          .speculation = sequence_->speculation_counts()};
}

Usage SessionText::UsageSince(const Counts& since) const {
  const Counts now = Count();
  Usage usage;
  usage.input_tokens = now.input_tokens - since.input_tokens;
  usage.generated_tokens = now.generated_tokens - since.generated_tokens;
  usage.evicted_tokens = now.evicted_tokens - since.evicted_tokens;
  usage.text_position = static_cast<uint64_t>(length());
  usage.visible_tokens =
      static_cast<uint64_t>(reporter_.VisibleTokens(read_length()));
  usage.peak_resident_tokens = static_cast<uint64_t>(peak_resident_);
  usage.drafted_tokens = now.speculation.drafted - since.speculation.drafted;
  usage.accepted_tokens = now.speculation.accepted - since.speculation.accepted;
  return usage;
}

Usage SessionText::TakeTurnUsage() {
  const Usage usage = UsageSince(at_last_turn_);
  at_last_turn_ = Count();
  return usage;
}

}  // namespace millrace::session
