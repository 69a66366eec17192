#include "services/engine/engine_sequence.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace::engine {
namespace {

constexpr size_t kFewIds = 256;

// The first row, up to `last`, that sees nothing between the protected prefix
// and `begin`.
int64_t FirstRowThatSeesFrom(const cache::CachePolicy& policy, int64_t begin,
                             int64_t last) {
  int64_t low = 0, high = last;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (policy.Recomputes(middle).begin < begin) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

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
  // One token after logits that were wanted was picked from them.
  const bool picked = wanted_ == Logits::kLast && pending_.empty() &&
                      ids.size() == 1 && computed_ > 0;
  const int64_t begin = length();
  pending_.Append(ids, table_->steps);
  if (LeavesNoTrace()) draft_.Add(ids);
  if (picked) {
    input_open_ = false;
  } else if (ReadsInputs()) {
    AddInput(begin, length());
  }
}

bool EngineSequence::LeavesNoTrace() const {
  return options_.policy->scoring() == nullptr &&
         !options_.policy->traits().recomputes;
}

bool EngineSequence::GuessComesNext() {
  return speculation_ != Speculation::kNone && LeavesNoTrace() &&
         draft_.ProposesNext();
}

absl::Span<const int32_t> EngineSequence::Guess(int64_t most) {
  if (speculation_ == Speculation::kNone || !LeavesNoTrace()) return {};
  return draft_.Propose(std::min(most, Facts().max_chunk - 1));
}

absl::StatusOr<cache::KvView> EngineSequence::ReserveGuess(int guessed) {
  auto view = Reserve(1 + guessed);
  if (!view.ok()) return view;
  counts_.drafted += guessed;
  table_->speculation.drafted += guessed;
  return view;
}

bool EngineSequence::Accept(int32_t id) {
  const bool picked = pending_.size() == 1 && pending_.First(1)[0] == id;
  if (!picked || wanted_ != Logits::kLast || paused_) return false;
  if (table_->cache.Reserved(id_) == 0) return false;  // it was cut meanwhile
  Commit(1);
  ++counts_.accepted;
  ++table_->speculation.accepted;
  return true;
}

void EngineSequence::EndGuess(int guessed, int accepted) {
  Drop();
  draft_.Learn(guessed, accepted);
}

bool EngineSequence::ReadsInputs() const {
  const cache::AttentionScoring* const scoring = options_.policy->scoring();
  return scoring != nullptr && scoring->HeldBackTokens() > 0;
}

void EngineSequence::AddInput(int64_t begin, int64_t end) {
  if (input_open_) {
    inputs_.back().end = end;
    return;
  }
  const int64_t earliest = table_->cache.EarliestCut(id_);
  inputs_.erase(inputs_.begin(),
                std::find_if(inputs_.begin(), inputs_.end(),
                             [&](const cache::TextRange& input) {
                               return input.end > earliest;
                             }));
  inputs_.push_back({begin, end});
  input_open_ = true;
}

// An input that is cut in its midst goes on with what is appended next.
void EngineSequence::CutInputs(int64_t length) {
  while (!inputs_.empty() && inputs_.back().begin >= length) {
    inputs_.pop_back();
    input_open_ = false;
  }
  if (inputs_.empty() || inputs_.back().end <= length) return;
  inputs_.back().end = length;
  input_open_ = true;
}

int64_t EngineSequence::InputEnd() const {
  const int64_t next = cached_tokens();
  for (const cache::TextRange& input : inputs_) {
    if (next < input.begin || next >= input.end) continue;
    const bool is_open = input_open_ && input.end == inputs_.back().end;
    return is_open && wanted_ != Logits::kLast ? cache::kUnlimited : input.end;
  }
  return next;
}

int64_t EngineSequence::WrittenAhead() const {
  const int64_t next = cached_tokens();
  for (const cache::TextRange& input : inputs_) {
    if (next < input.begin) return input.begin - next;
    if (next < input.end) break;
  }
  return cache::kUnlimited;
}

void EngineSequence::WantLogits(Logits which) {
  wanted_ = which;
  if (which != Logits::kLast || !pending_.empty() || ids_.empty()) return;
  // Possible, since EarliestCut leaves room for it; after an INTERNAL error,
  // when nothing is promised any more, perhaps not.
  if (!table_->cache.Truncate(id_, computed_ - 1).ok()) return;
  --computed_;
  const int32_t last = ids_.back();
  ids_.pop_back();
  pending_.Append({last}, table_->steps);
  Requeue();
}

absl::Status EngineSequence::Truncate(int64_t length) {
  if (length < EarliestCut() || length > this->length()) {
    return absl::OutOfRangeError(
        absl::StrCat("cut a text of ", this->length(), " tokens to ", length,
                     ": what was visible there is gone; from ", EarliestCut(),
                     " to ", this->length(), " works"));
  }
  draft_.RemoveLast(this->length() - length);
  const int64_t cut = cached_tokens() - length;
  pending_.KeepFirst(std::max<int64_t>(0, -cut));
  computed_ = std::min(computed_, length);
  CutInputs(length);
  if (cut <= 0) {
    table_->cache.ShortenInput(id_, length);
    Requeue();
    return absl::OkStatus();
  }
  const absl::Status status = table_->cache.Truncate(id_, length);
  if (!status.ok()) return status;
  ids_.resize(ids_.size() - static_cast<size_t>(cut));
  Requeue();
  return status;
}

void EngineSequence::Requeue() {
  const absl::Span<const int32_t> known = absl::MakeConstSpan(ids_);
  const auto cached = static_cast<size_t>(cached_tokens() - ids_begin_);
  pending_.Prepend(known.subspan(cached));
  ids_.resize(cached);
}

int64_t EngineSequence::EarliestCut() const {
  int64_t earliest = table_->cache.EarliestCut(id_);
  if (options_.policy->traits().recomputes && ids_begin_ > 0) {
    // Any cut, as far as there are ids to compute anew.
    earliest = FirstRowThatSeesFrom(*options_.policy, ids_begin_, computed_);
  }
  // The token before the cut may have to be computed once more, which is a cut
  // by one token more.
  return earliest == 0 ? 0 : std::min(earliest + 1, length());
}

void EngineSequence::Clear() {
  pending_.Clear();
  draft_.Clear();
  ids_.clear();
  ids_begin_ = 0;
  forget_at_ = 0;
  computed_ = 0;
  inputs_.clear();
  input_open_ = false;
  table_->cache.Clear(id_);
}

int64_t EngineSequence::resident_tokens() const {
  return table_->cache.ResidentTokens(id_);
}

int64_t EngineSequence::peak_resident_tokens() const {
  return table_->cache.PeakResidentTokens(id_);
}

int64_t EngineSequence::room_to_write() const {
  const cache::AttentionScoring* const scoring = options_.policy->scoring();
  if (scoring == nullptr) return cache::kUnlimited;
  const int64_t most = scoring->MostWhileWriting();
  if (most == cache::kUnlimited) return most;
  const int64_t held = resident_tokens() + queued_tokens();
  if (inputs_.empty() || inputs_.back().end < cached_tokens()) {
    return most - held;
  }
  // What is read is cut at its end, be that now or still to come.
  const int64_t written = length() - inputs_.back().end;
  return most - written - std::min(held - written, scoring->budget_tokens());
}

std::vector<cache::TextRange> EngineSequence::Held() const {
  std::vector<cache::TextRange> held = table_->cache.Resident(id_);
  const int64_t cached = cached_tokens();
  if (held.empty() || held.back().end < cached) {
    held.push_back({cached, cache::kUnlimited});
  }
  held.back().end = cache::kUnlimited;
  return held;
}

int64_t EngineSequence::reserved_bytes() const {
  const cache::KvSpec& spec = table_->cache.spec();
  return cache::MaxBlocks(options_, spec.dtype) * spec.BytesPerBlock();
}

int64_t EngineSequence::HeldBack() const {
  if (!input_open_ || wanted_ != Logits::kNone) return 0;
  const int64_t begin = std::max(inputs_.back().begin, cached_tokens());
  return std::min(options_.policy->scoring()->HeldBackTokens(),
                  inputs_.back().end - begin);
}

SequenceFacts EngineSequence::Facts() const {
  return {.id = id_,
          .pending_tokens = queued_tokens() - HeldBack(),
          .wants_logits = wanted_ == Logits::kLast,
          .max_chunk = std::min(table_->cache.MaxChunk(id_), WrittenAhead()),
          .paused = paused_,
          .waiting_since = std::max(pending_.waiting_since(), last_served_)};
}

void EngineSequence::Prepare() {
  if (ReadsInputs()) table_->cache.SetInputEnd(id_, InputEnd());
  Rebuild();
}

void EngineSequence::Rebuild() {
  if (!options_.policy->traits().recomputes || pending_.empty()) return;
  const int64_t before = cached_tokens();
  const int64_t row =
      wanted_ == Logits::kAll ? computed_ : before + pending_.size() - 1;
  const int64_t begin = table_->cache.Rebuild(id_, row);
  if (begin > before) return Skip(begin - before);
  Requeue();
}

void EngineSequence::Skip(int64_t tokens) {
  Remember(pending_.First(tokens));
  pending_.RemoveFirst(tokens);
  computed_ = std::max(computed_, cached_tokens());
}

absl::StatusOr<cache::KvView> EngineSequence::Reserve(int tokens) {
  return table_->cache.Reserve(id_, tokens);
}

absl::StatusOr<StepPart> EngineSequence::PreparePart(int tokens) {
  absl::StatusOr<cache::KvView> view = Reserve(tokens);
  if (!view.ok()) return view.status();
  const int anew = static_cast<int>(std::min<int64_t>(tokens, computed_anew()));
  const absl::Span<const int32_t> ids = pending_.First(tokens);
  return StepPart{.id = id_,
                  .first = cached_tokens(),
                  .tokens = tokens,
                  .anew = anew,
                  .logits_rows = WantedRows(tokens, anew, queued_tokens()),
                  .decodes = Decodes(Facts()),
                  .ids = {ids.begin(), ids.end()},
                  .view = *std::move(view)};
}

absl::StatusOr<StepPart> EngineSequence::PreparePick() {
  absl::StatusOr<cache::KvView> view = Reserve(1);
  if (!view.ok()) return view.status();
  return StepPart{.id = id_,
                  .first = cached_tokens(),
                  .tokens = 1,
                  .logits_rows = 1,
                  .decodes = true,
                  .ids = {0},
                  .view = *std::move(view)};
}

bool EngineSequence::CommitBegun(const StepPart& part) {
  const bool holds =
      !paused_ && table_->cache.Reserved(id_) == part.tokens &&
      cached_tokens() == part.first && pending_.size() >= part.tokens &&
      pending_.First(part.tokens) == absl::MakeConstSpan(part.ids) &&
      WantedRows(part.tokens, part.anew, queued_tokens()) <= part.logits_rows &&
      !(part.sampling && wanted_ == Logits::kAll);
  holds ? Commit(part.tokens) : Drop();
  return holds;
}

void EngineSequence::Commit(int tokens) {
  table_->cache.CommitFirst(id_, tokens);
  last_served_ = table_->steps;
  Remember(pending_.First(tokens));
  pending_.RemoveFirst(tokens);
  computed_ = std::max(computed_, cached_tokens());
  // Its last row had a vote: what is appended next is another input.
  if (wanted_ == Logits::kLast && pending_.empty()) input_open_ = false;
}

void EngineSequence::DropPending() {
  draft_.RemoveLast(pending_tokens());
  pending_.Clear();
  CutInputs(length());
}

int EngineSequence::WantedRows(int tokens, int anew, int64_t queued) const {
  switch (wanted_) {
    case Logits::kNone:
      return 0;
    case Logits::kLast:
      return tokens == queued ? 1 : 0;
    case Logits::kAll:
      return tokens - anew;
  }
  return 0;
}

void EngineSequence::Remember(absl::Span<const int32_t> ids) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  if (ids_.size() >= forget_at_) ForgetIds();
}

int64_t EngineSequence::FirstNeededId() const {
  if (!options_.policy->traits().recomputes) {
    return table_->cache.EarliestCut(id_);
  }
  const int64_t row =
      std::max<int64_t>(0, cached_tokens() - options_.rollback_tokens - 1);
  return std::min(options_.policy->Recomputes(row).begin, cached_tokens());
}

// Looks seldom enough to cost constant time a token, and often enough to keep
// no more than twice what is needed.
void EngineSequence::ForgetIds() {
  const int64_t needed = FirstNeededId();
  if (needed > ids_begin_) {
    ids_.erase(ids_.begin(), ids_.begin() + (needed - ids_begin_));
    ids_begin_ = needed;
  }
  forget_at_ = std::max(kFewIds, 2 * ids_.size());
}

}  // namespace millrace::engine
