#include "services/oneshot/scoring.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"

namespace millrace::oneshot {
namespace {

constexpr int64_t kMaxWaitingTokens = 8192;
constexpr int64_t kMaxUnreadValues = 65536;
constexpr size_t kMaxChunkValues = 4096;

absl::Status TooLong(int64_t limit) {
  errors::Details details;
  details.metadata = {{"limit", absl::StrCat(limit)}};
  return errors::MakeError(
      absl::StatusCode::kFailedPrecondition, errors::Reason::kCacheFull,
      absl::StrCat("the text has more than ", limit,
                   " tokens, all that policy 'full' holds; ask for a policy "
                   "that evicts, such as 'sinks'"),
      details);
}

}  // namespace

float LogLikelihood(absl::Span<const float> logits, int32_t id) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (float logit : logits) total += std::exp(logit - highest);
  return static_cast<float>(logits[id] - highest - std::log(total));
}

std::shared_ptr<Scoring> Scoring::Start(const Dependencies& deps,
                                        ScoringRequest request,
                                        Admitted admitted) {
  std::shared_ptr<Scoring> scoring(
      new Scoring(deps, std::move(request), std::move(admitted)));
  SequenceRequest::Start(scoring);
  return scoring;
}

Scoring::Scoring(const Dependencies& deps, ScoringRequest request,
                 Admitted admitted)
    : SequenceRequest(deps, request.id, request.policy.policy,
                      std::move(admitted)),
      request_(std::move(request)),
      reporter_(request_.policy.policy, [this] { return sequence()->Held(); }),
      last_progress_(requested()) {}

void Scoring::Begin() { sequence()->WantLogits(engine::Logits::kAll); }

void Scoring::Add(std::vector<int32_t> ids) {
  {
    absl::MutexLock lock(&mutex_);
    waiting_tokens_ += static_cast<int64_t>(ids.size());
  }
  Post([this, ids = std::move(ids)] {
    if (sequence()) Read(ids);
  });
}

void Scoring::FinishInput() {
  Post([this] {
    input_finished_ = true;
    if (sequence()) MaybeFinish();
  });
}

bool Scoring::HasRoom() const {
  absl::MutexLock lock(&mutex_);
  return waiting_tokens_ < kMaxWaitingTokens;
}

void Scoring::Read(const std::vector<int32_t>& ids) {
  if (ids.empty()) return;
  const int64_t limit = policy().MaxTextTokens();
  if (length_ + static_cast<int64_t>(ids.size()) > limit) {
    Finish(TooLong(limit));
    return;
  }
  if (!last_row_.empty()) {
    ScoreNext(last_row_, ids.front());
    last_row_.clear();
  }
  length_ += static_cast<int64_t>(ids.size());
  ahead_.insert(ahead_.end(), ids.begin(), ids.end());
  sequence()->Append(ids);
}

void Scoring::OnRows(int64_t first, int64_t count,
                     absl::Span<const float> logits) {
  const size_t vocabulary = logits.size() / count;
  last_row_time_ = deps().now();
  if (first == 0) first_row_ = last_row_time_;
  peak_resident_ = sequence()->peak_resident_tokens();
  for (int64_t i = 0; i < count; ++i) {
    const auto row = logits.subspan(i * vocabulary, vocabulary);
    if (i + 1 < static_cast<int64_t>(ahead_.size())) {
      ScoreNext(row, ahead_[i + 1]);
    } else {
      last_row_.assign(row.begin(), row.end());
    }
  }
  ahead_.erase(ahead_.begin(), ahead_.begin() + count);
  computed_ = first + count;
  session::InputAccepted read;
  read.tokens = static_cast<uint64_t>(count);
  Observe(read);
  Report(computed_, /*last=*/false);
  if (last_row_time_ - last_progress_ >= absl::Seconds(1)) {
    last_progress_ = last_row_time_;
    Push(ScoreProgress{static_cast<uint64_t>(computed_), sum_});
  }
  std::function<void()> on_room;
  {
    absl::MutexLock lock(&mutex_);
    const bool had_room = waiting_tokens_ < kMaxWaitingTokens;
    waiting_tokens_ -= count;
    if (!had_room && waiting_tokens_ < kMaxWaitingTokens) on_room = on_room_;
    paused_ = unread_values_ > kMaxUnreadValues;
    sequence()->SetPaused(paused_);
  }
  if (on_room) on_room();
  if (!std::isfinite(sum_)) {
    Finish(errors::MakeError(absl::StatusCode::kInternal,
                             errors::Reason::kNonfiniteLogits,
                             "the model's logits are not finite"));
    return;
  }
  MaybeFinish();
}

void Scoring::ScoreNext(absl::Span<const float> logits, int32_t id) {
  const float value = LogLikelihood(logits, id);
  sum_ += value;
  if (!request_.per_token) return;
  // The position of `id`: each row scores the token after its own.
  absl::MutexLock lock(&mutex_);
  ++unread_values_;
  if (!events_.empty()) {
    auto* chunk = std::get_if<ScoreChunk>(&events_.back());
    if (chunk != nullptr && chunk->log_likelihoods.size() < kMaxChunkValues) {
      chunk->log_likelihoods.push_back(value);
      ++scored_;
      return;
    }
  }
  events_.push_back(ScoreChunk{static_cast<uint64_t>(++scored_), {value}});
}

void Scoring::Push(ScoreEvent event) {
  std::function<void()> on_event;
  {
    absl::MutexLock lock(&mutex_);
    events_.push_back(std::move(event));
    on_event = on_event_;
  }
  if (on_event) on_event();
}

std::optional<ScoreEvent> Scoring::Take() {
  bool wake = false;
  std::optional<ScoreEvent> event;
  {
    absl::MutexLock lock(&mutex_);
    if (events_.empty()) return std::nullopt;
    event = std::move(events_.front());
    events_.pop_front();
    if (const auto* chunk = std::get_if<ScoreChunk>(&*event)) {
      unread_values_ -= static_cast<int64_t>(chunk->log_likelihoods.size());
    }
    wake = paused_ && unread_values_ <= kMaxUnreadValues / 2;
    if (wake) paused_ = false;
  }
  if (wake) {
    Post([this] {
      if (sequence()) sequence()->SetPaused(false);
    });
  }
  return event;
}

void Scoring::SetCallbacks(std::function<void()> on_event,
                           std::function<void()> on_room) {
  absl::MutexLock lock(&mutex_);
  on_event_ = std::move(on_event);
  on_room_ = std::move(on_room);
}

void Scoring::Report(int64_t length, bool last) {
  auto update =
      last ? reporter_.ReportAll(length)
           : reporter_.Advance(length, request_.cache_update_interval_tokens);
  if (update) {
    Observe(*update);
    Push(*std::move(update));
    return;
  }
  std::function<void()> on_event;
  {
    absl::MutexLock lock(&mutex_);
    if (!events_.empty()) on_event = on_event_;
  }
  if (on_event) on_event();
}

void Scoring::MaybeFinish() {
  if (input_finished_ && computed_ == length_) Finish(absl::OkStatus());
}

void Scoring::OnError(const absl::Status& status) {
  Finish(absl::IsFailedPrecondition(status)
             ? TooLong(computed_)
             : errors::MakeError(absl::StatusCode::kInternal,
                                 errors::Reason::kDeviceError,
                                 "the backend failed to compute a step"));
}

void Scoring::Finish(const absl::Status& error) {
  Report(computed_, /*last=*/true);
  ScoreFinished finished;
  finished.tokens = computed_;
  finished.sum = sum_;
  finished.error = error;
  finished.usage.input_tokens = computed_;
  finished.usage.text_position = computed_;
  finished.usage.visible_tokens = reporter_.VisibleTokens(computed_);
  finished.usage.evicted_tokens = computed_ - finished.usage.visible_tokens;
  finished.usage.peak_resident_tokens = peak_resident_;
  finished.usage.queued = queued();
  if (computed_ > 0) finished.usage.decode = last_row_time_ - first_row_;
  Push(std::move(finished));
  Release();
}

void Scoring::FinishDrained() {
  Finish(errors::MakeError(absl::StatusCode::kUnavailable,
                           errors::Reason::kDraining, "the server shuts down"));
}

}  // namespace millrace::oneshot
