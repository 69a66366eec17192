#include "services/engine/engine_sequence.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace::engine {
namespace {

constexpr size_t kFewIds = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<EngineSequence>> EngineSequence::Open(
    const cache::SequenceOptions& options, SequenceClient* client,
    SequenceTable* table) {
  const absl::StatusOr<cache::SequenceId> id = table->cache.Open(options);
  if (!id.ok()) return id.status();
  std::unique_ptr<EngineSequence> sequence(
      new EngineSequence(*id, options, client, table));
  table->open[*id] = sequence.get();
  return sequence;
}

EngineSequence::~EngineSequence() {
  table_->open.erase(id_);
  table_->cache.Close(id_);
}

void EngineSequence::Append(absl::Span<const int32_t> ids) {
  pending_.Append(ids, table_->steps);
}

void EngineSequence::WantLogits(Logits which) {
  wanted_ = which;
  if (which != Logits::kLast || !pending_.empty() || ids_.empty()) return;
  // Possible, since EarliestCut leaves room for it; after an INTERNAL error,
  // when nothing is promised any more, perhaps not.
  if (!table_->cache.Truncate(id_, computed_tokens() - 1).ok()) return;
  const int32_t last = ids_.back();
  ids_.pop_back();
  Append({last});
}

int64_t EngineSequence::computed_tokens() const {
  return table_->cache.Length(id_);
}

absl::Status EngineSequence::Truncate(int64_t length) {
  if (length < EarliestCut() || length > this->length()) {
    return absl::OutOfRangeError(
        absl::StrCat("cut a text of ", this->length(), " tokens to ", length,
                     ": what was visible there is gone; from ", EarliestCut(),
                     " to ", this->length(), " works"));
  }
  const int64_t cut = computed_tokens() - length;
  pending_.KeepFirst(std::max<int64_t>(0, -cut));
  if (cut <= 0) return absl::OkStatus();
  absl::Status status = table_->cache.Truncate(id_, length);
  if (status.ok()) ids_.resize(ids_.size() - static_cast<size_t>(cut));
  return status;
}

int64_t EngineSequence::EarliestCut() const {
  const int64_t earliest = table_->cache.EarliestCut(id_);
  // The token before the cut may have to be computed once more, which is a cut
  // by one token more.
  return earliest == 0 ? 0 : std::min(earliest + 1, length());
}

void EngineSequence::Clear() {
  pending_.Clear();
  ids_.clear();
  ids_begin_ = 0;
  forget_at_ = 0;
  table_->cache.Clear(id_);
}

int64_t EngineSequence::resident_tokens() const {
  return table_->cache.ResidentTokens(id_);
}

int64_t EngineSequence::peak_resident_tokens() const {
  return table_->cache.PeakResidentTokens(id_);
}

int64_t EngineSequence::reserved_bytes() const {
  return cache::MaxBlocks(options_) * table_->cache.spec().BytesPerBlock();
}

SequenceFacts EngineSequence::Facts() const {
  return {.id = id_,
          .pending_tokens = pending_.size(),
          .wants_logits = wanted_ == Logits::kLast,
          .max_chunk = table_->cache.MaxChunk(id_),
          .paused = paused_,
          .waiting_since = std::max(pending_.waiting_since(), last_served_)};
}

absl::StatusOr<cache::KvView> EngineSequence::Reserve(int tokens) {
  return table_->cache.Reserve(id_, tokens);
}

void EngineSequence::Commit(int tokens) {
  table_->cache.Commit(id_);
  last_served_ = table_->steps;
  Remember(pending_.First(tokens));
  pending_.RemoveFirst(tokens);
}

int EngineSequence::WantedRows(int tokens, int64_t pending) const {
  switch (wanted_) {
    case Logits::kNone:
      return 0;
    case Logits::kLast:
      return tokens == pending ? 1 : 0;
    case Logits::kAll:
      return tokens;
  }
  return 0;
}

void EngineSequence::Remember(absl::Span<const int32_t> ids) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  if (ids_.size() >= forget_at_) ForgetIds();
}

// Looks seldom enough to cost constant time a token, and often enough to keep
// no more than twice what is needed.
void EngineSequence::ForgetIds() {
  const int64_t needed = table_->cache.EarliestCut(id_);
  if (needed > ids_begin_) {
    ids_.erase(ids_.begin(), ids_.begin() + (needed - ids_begin_));
    ids_begin_ = needed;
  }
  forget_at_ = std::max(kFewIds, 2 * ids_.size());
}

}  // namespace millrace::engine
