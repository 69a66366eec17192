#include "services/oneshot/admission_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"

namespace millrace::oneshot {
namespace {

using errors::Reason;

constexpr absl::Duration kRetryAfter = absl::Seconds(1);

absl::Status Busy(absl::StatusCode code, Reason reason,
                  absl::string_view message) {
  errors::Details details;
  details.retry_after = kRetryAfter;
  return errors::MakeError(code, reason, message, details);
}

absl::Status Draining() {
  return Busy(absl::StatusCode::kUnavailable, Reason::kDraining,
              "the server shuts down and takes no new requests");
}

}  // namespace

AdmissionQueue::AdmissionQueue(engine::Engine* engine, const Options& options,
                               std::function<absl::Time()> now)
    : engine_(engine), options_(options), now_(std::move(now)) {}

uint64_t AdmissionQueue::Submit(const cache::SequenceOptions& options,
                                engine::SequenceClient* client,
                                Admitted admitted) {
  const uint64_t ticket = next_ticket_++;
  if (draining_) {
    admitted(Draining());
    return ticket;
  }
  if (waiting_.empty()) {
    auto sequence = engine_->Open(options, client);
    if (sequence.ok() || !absl::IsResourceExhausted(sequence.status())) {
      admitted(std::move(sequence));
      return ticket;
    }
  }
  if (absl::Status never = NeverFits(options); !never.ok()) {
    admitted(never);
    return ticket;
  }
  if (waiting() >= options_.max_waiting) {
    admitted(Busy(absl::StatusCode::kResourceExhausted, Reason::kQueueFull,
                  absl::StrCat(waiting(), " requests wait already; at most ",
                               options_.max_waiting, " may")));
    return ticket;
  }
  waiting_.push_back({ticket, options, client, std::move(admitted),
                      now_() + options_.timeout});
  ++num_waiting_;
  return ticket;
}

void AdmissionQueue::Cancel(uint64_t ticket) {
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    if (it->ticket != ticket) continue;
    waiting_.erase(it);
    --num_waiting_;
    return;
  }
}

void AdmissionQueue::Tick() {
  while (!waiting_.empty()) {
    Waiting& first = waiting_.front();
    auto sequence = engine_->Open(first.options, first.client);
    if (!sequence.ok() && absl::IsResourceExhausted(sequence.status())) {
      if (now_() < first.deadline) return;
      sequence = Busy(absl::StatusCode::kResourceExhausted, Reason::kKvBudget,
                      absl::StrCat("no memory came free within ",
                                   absl::FormatDuration(options_.timeout), ": ",
                                   sequence.status().message()));
    }
    Admitted admitted = std::move(first.admitted);
    waiting_.pop_front();
    --num_waiting_;
    admitted(std::move(sequence));
  }
}

void AdmissionQueue::StartDrain() {
  draining_ = true;
  while (!waiting_.empty()) {
    Admitted admitted = std::move(waiting_.front().admitted);
    waiting_.pop_front();
    --num_waiting_;
    admitted(Draining());
  }
}

absl::Status AdmissionQueue::NeverFits(
    const cache::SequenceOptions& options) const {
  cache::SequenceOptions in_engine = options;
  in_engine.max_chunk_tokens = engine_->options().prefill_chunk_tokens;
  const int64_t wanted = cache::MaxBlocks(in_engine, engine_->kv_spec().dtype);
  const int64_t all = engine_->stats().cache.num_blocks;
  if (wanted <= all) return absl::OkStatus();
  return errors::MakeError(
      absl::StatusCode::kResourceExhausted, Reason::kKvBudget,
      absl::StrCat("the cache policy may hold ", wanted,
                   " blocks of 16 tokens; this server has ", all,
                   " in all: ask for a smaller window or fewer max_tokens"));
}

}  // namespace millrace::oneshot
