// SessionText is the one text of a session, as its cache holds it: how long it
// is, how it ends, how much of it is read, what is forgotten, what it counts.
//
//   text.Open(std::move(sequence));
//   text.AppendSystemBlock();
//   text.AppendInput(7, ids, now);     // told while it is read, see OnRows
//   text.WantLogits(true);
//   text.OnRows(computed, now);        // InputProgress, CacheUpdated
//
// "Read" is what the model has computed; `length` counts what waits for that,
// too. Not thread-safe. REQUIRES: open, for all but the constructor, Open,
// is_open and what says nothing of the sequence.
#ifndef MILLRACE_SERVICES_SESSION_SESSION_TEXT_H_
#define MILLRACE_SERVICES_SESSION_SESSION_TEXT_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cache/policies/registry.h"
#include "cache/text_range.h"
#include "services/engine/engine.h"
#include "services/engine/sampling/recent_tokens.h"
#include "services/session/cache_reporter.h"
#include "services/session/chat_tail.h"
#include "services/session/event.h"
#include "services/session/outbox.h"

namespace millrace::session {

class SessionText {
 public:
  struct Options {
    cache::MadePolicy policy;
    const text::ChatFormat* chat_format = nullptr;  // borrowed; null: plain
    std::vector<int32_t> system_ids;                // the text begins with them
    int recent_tokens = 0;  // that penalties and guards look back on
  };

  // `outbox` is borrowed.
  SessionText(Options options, Outbox* outbox);

  void Open(std::unique_ptr<engine::Sequence> sequence) {
    sequence_ = std::move(sequence);
  }
  void Close() { sequence_.reset(); }
  bool is_open() const { return sequence_ != nullptr; }

  // ---- It grows, and is cut ----
  void AppendSystemBlock();
  // Input of the message `client_seq`.
  void AppendInput(uint64_t client_seq, absl::Span<const int32_t> ids,
                   absl::Time now);
  // Template text.
  void AppendPrefix(absl::Span<const int32_t> ids);
  // A token that a turn has picked, and added to `recent` itself.
  void AppendPicked(int32_t id);
  // Back to `length` tokens, or a little more if the cache does not go back so
  // far. False if nothing could be cut.
  bool CutTo(int64_t length);
  // Back to the system block; forgets how much was read and reported.
  void Reset();

  // ---- It is read ----
  // Whether the logits of its last token are wanted. Asking once more while
  // nothing is pending computes that token again: its logits were not wanted,
  // or went unused.
  void WantLogits(bool wanted);
  void SetPaused(bool paused) { sequence_->SetPaused(paused); }
  void SetSpeculation(engine::Speculation which) {
    sequence_->SetSpeculation(which);
  }
  // The first `computed` tokens are read. Emits progress of inputs, and what is
  // forgotten when one is read to its end.
  void OnRows(int64_t computed, absl::Time now);
  // Emits what was forgotten since, at most once per interval; and at once.
  void Report(int64_t interval_tokens);
  void ReportAll();

  // ---- How it is ----
  int64_t length() const { return sequence_->length(); }
  int64_t pending_tokens() const { return sequence_->pending_tokens(); }
  // Those of them that are read before a turn begins.
  int64_t readable_tokens() const { return sequence_->readable_tokens(); }
  int64_t reserved_bytes() const { return sequence_->reserved_bytes(); }
  const std::vector<int32_t>& system_ids() const { return options_.system_ids; }
  ChatTail& tail() { return tail_; }
  const ChatTail& tail() const { return tail_; }
  engine::RecentTokens* recent() { return &recent_; }
  const cache::MadePolicy& policy() const { return options_.policy; }

  // ---- How long it may get ----
  // Whether `more` tokens and one after them are too many.
  bool AtCapacity(int64_t more) const;
  // CACHE_FULL if `tokens` do not fit behind the text and `waiting` others.
  absl::Status CheckRoom(int64_t tokens, int64_t waiting) const;
  // CACHE_FULL. REQUIRES: AtCapacity.
  absl::Status Full() const;

  // ---- What it counts ----
  Usage TotalUsage() const { return UsageSince({}); }
  // Since the last turn; the next one counts from here.
  Usage TakeTurnUsage();
  // Of a turn that has read and written nothing.
  Usage EmptyTurnUsage() const { return UsageSince(Count()); }

 private:
  struct Counts {
    uint64_t input_tokens = 0, generated_tokens = 0, evicted_tokens = 0;
    engine::SpeculationCounts speculation;
  };
  // An input that is placed and not yet read to its end.
  struct ReadingInput {
    uint64_t client_seq = 0;
    cache::TextRange range;
    absl::Time begun, last_progress;
  };

  // Tokens that are read or written: what evictions follow from.
  int64_t read_length() const;
  void ReportProgress(ReadingInput& input, int64_t computed, absl::Time now);
  Counts Count() const;
  Usage UsageSince(const Counts& since) const;

  const Options options_;
  const int64_t limit_;  // of the text; kUnlimited if the policy evicts
  Outbox* const outbox_;
  std::unique_ptr<engine::Sequence> sequence_;  // null: closed
  engine::RecentTokens recent_;
  CacheReporter reporter_;
  ChatTail tail_;
  std::deque<ReadingInput> reading_;
  engine::Logits wanted_ = engine::Logits::kNone;
  uint64_t input_tokens_ = 0, generated_tokens_ = 0;
  Counts at_last_turn_;
  int64_t peak_resident_ = 0;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_SESSION_TEXT_H_
