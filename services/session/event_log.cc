#include "services/session/event_log.h"

#include <utility>

namespace millrace::session {
namespace {

// What an event costs to keep, beside what its strings and lists hold.
constexpr int64_t kEventBytes = 128;

int64_t StatusBytes(const absl::Status& status) {
  return static_cast<int64_t>(status.message().size());
}

int64_t OptionBytes(const engine::GenerationOptions& options) {
  size_t bytes = 8 * options.sampling.logit_bias.size() +
                 4 * options.stopping.stop_token_ids.size();
  for (const std::string& stop : options.stopping.stop_strings) {
    bytes += stop.size() + 32;
  }
  return static_cast<int64_t>(bytes);
}

struct Weight {
  int64_t operator()(const Opened& e) const {
    return static_cast<int64_t>(4 * e.system_token_ids.size()) +
           OptionBytes(e.options.generation);
  }
  int64_t operator()(const TurnStarted& e) const {
    return static_cast<int64_t>(4 * e.prefix_token_ids.size());
  }
  int64_t operator()(const Output& e) const {
    size_t bytes = 4 * e.token_ids.size() + e.text.size();
    for (const engine::TokenLogprobs& logprobs : e.logprobs) {
      bytes += 40 + 8 * logprobs.top.size();
    }
    return static_cast<int64_t>(bytes);
  }
  int64_t operator()(const TurnFinished& e) const {
    return StatusBytes(e.error) +
           static_cast<int64_t>(e.stop_match
                                    ? e.stop_match->text.size() +
                                          e.stop_match->trimmed_text.size()
                                    : 0);
  }
  int64_t operator()(const CacheUpdated& e) const {
    return static_cast<int64_t>(
        16 * (e.evicted.size() + e.restored.size() + e.recomputed.size()));
  }
  int64_t operator()(const OptionsUpdated& e) const {
    return OptionBytes(e.options.generation);
  }
  int64_t operator()(const Rejected& e) const { return StatusBytes(e.error); }
  int64_t operator()(const Closed& e) const { return StatusBytes(e.error); }
  template <typename Other>
  int64_t operator()(const Other&) const {
    return 0;
  }
};

int64_t BytesOf(const EventBody& body) {
  return kEventBytes + std::visit(Weight(), body);
}

// One for each message of a client that does not read; all other events are
// bounded by these, or stop while the log is full.
bool IsAnswer(const EventBody& body) {
  return std::holds_alternative<InputQueued>(body) ||
         std::holds_alternative<TurnFinished>(body) ||
         std::holds_alternative<OptionsUpdated>(body) ||
         std::holds_alternative<Rejected>(body);
}

void Join(Output more, Output* output) {
  output->token_ids.insert(output->token_ids.end(), more.token_ids.begin(),
                           more.token_ids.end());
  output->unnamed_tokens += more.unnamed_tokens;
  output->text += more.text;
  for (engine::TokenLogprobs& logprobs : more.logprobs) {
    output->logprobs.push_back(std::move(logprobs));
  }
}

}  // namespace

EventLog::EventLog(const Limits& limits) : limits_(limits) {}

void EventLog::Append(EventBody body) {
  {
    absl::MutexLock lock(&mutex_);
    AppendLocked(std::move(body));
  }
  absl::MutexLock lock(&wake_up_mutex_);
  if (wake_up_) wake_up_();
}

void EventLog::AppendLocked(EventBody body) {
  const int64_t bytes = BytesOf(body);
  if (JoinsLast(body)) {
    Kept& last = events_.back();
    Join(std::get<Output>(std::move(body)), &std::get<Output>(last.event.body));
    last.bytes += bytes - kEventBytes;
    unread_bytes_ += bytes - kEventBytes;
    return;
  }
  const bool answer = IsAnswer(body);
  events_.push_back({.event = {next_number_++, std::move(body)},
                     .bytes = bytes,
                     .answer = answer});
  Count(events_.back(), +1);
}

bool EventLog::JoinsLast(const EventBody& body) const {
  const auto* more = std::get_if<Output>(&body);
  if (more == nullptr || never_taken_ == next_number_ || events_.empty()) {
    return false;
  }
  const auto* last = std::get_if<Output>(&events_.back().event.body);
  return last != nullptr && last->turn == more->turn &&
         last->text_position + NumTokens(*last) == more->text_position;
}

std::optional<Event> EventLog::Take() {
  std::optional<Event> event;
  bool drained;
  {
    absl::MutexLock lock(&mutex_);
    if (cursor_ == next_number_) return std::nullopt;
    const bool was_full = FullLocked();
    event = At(cursor_).event;
    MoveCursor(cursor_ + 1);
    drained = was_full && !FullLocked();
  }
  if (drained && on_drained_) on_drained_();
  return event;
}

bool EventLog::Seek(uint64_t last_sequence_number) {
  bool found, drained;
  {
    absl::MutexLock lock(&mutex_);
    const bool was_full = FullLocked();
    const uint64_t first_kept = next_number_ - events_.size();
    found = last_sequence_number < next_number_ &&
            last_sequence_number + 1 >= first_kept;
    MoveCursor(found ? last_sequence_number + 1 : next_number_);
    drained = was_full && !FullLocked();
  }
  if (drained && on_drained_) on_drained_();
  return found;
}

void EventLog::MoveCursor(uint64_t number) {
  for (; cursor_ < number; ++cursor_) {
    Count(At(cursor_), -1);
    read_bytes_ += At(cursor_).bytes;
  }
  while (cursor_ > number) {
    Count(At(--cursor_), +1);
    read_bytes_ -= At(cursor_).bytes;
  }
  if (cursor_ > never_taken_) never_taken_ = cursor_;
  Forget();
}

void EventLog::Forget() {
  const auto read = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return static_cast<int64_t>(cursor_ - (next_number_ - events_.size()));
  };
  while (read() > 0 && (read() > limits_.max_kept_events ||
                        read_bytes_ > limits_.max_kept_bytes)) {
    read_bytes_ -= events_.front().bytes;
    events_.pop_front();
  }
}

void EventLog::Count(const Kept& kept, int sign) {
  unread_bytes_ += sign * kept.bytes;
  if (kept.answer) {
    unread_answers_ += sign;
    unread_answer_bytes_ += sign * kept.bytes;
  }
}

EventLog::Kept& EventLog::At(uint64_t number) {
  return events_[number - (next_number_ - events_.size())];
}

bool EventLog::FullLocked() const {
  return static_cast<int64_t>(next_number_ - cursor_) >=
             limits_.max_unread_events ||
         unread_bytes_ >= limits_.max_unread_bytes;
}

bool EventLog::Full() const {
  absl::MutexLock lock(&mutex_);
  return FullLocked();
}

bool EventLog::TooManyAnswers() const {
  absl::MutexLock lock(&mutex_);
  return unread_answers_ > limits_.max_unread_answers ||
         unread_answer_bytes_ > limits_.max_unread_answer_bytes;
}

int64_t EventLog::unread_bytes() const {
  absl::MutexLock lock(&mutex_);
  return unread_bytes_;
}

uint64_t EventLog::last_sequence_number() const {
  absl::MutexLock lock(&mutex_);
  return next_number_ - 1;
}

void EventLog::SetWakeUp(std::function<void()> wake_up) {
  absl::MutexLock lock(&wake_up_mutex_);
  wake_up_ = std::move(wake_up);
}

void EventLog::SetOnDrained(std::function<void()> on_drained) {
  on_drained_ = std::move(on_drained);
}

}  // namespace millrace::session
