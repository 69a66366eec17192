#include "cache/scored_slots.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <optional>

namespace millrace::cache {
namespace {

// Moves the survivors' numbers to the front.
template <class T>
void CloseUp(absl::Span<const int64_t> survivors, absl::Span<T> numbers) {
  for (size_t i = 0; i < survivors.size(); ++i) {
    numbers[i] = numbers[static_cast<size_t>(survivors[i])];
  }
}

// Clears the sums of slots [first, first + count).
void Clear(HeadTable<float>& sums, int64_t first, int64_t count) {
  for (int layer = 0; layer < sums.num_layers(); ++layer) {
    for (int head = 0; head < sums.num_kv_heads(); ++head) {
      const auto cleared = sums.At(layer, head).subspan(first, count);
      std::fill(cleared.begin(), cleared.end(), 0.0f);
    }
  }
}

}  // namespace

ScoredSlots::ScoredSlots(const CachePolicy& policy, const KvSpec& spec,
                         int64_t capacity)
    : scoring_(*policy.scoring()),
      accumulates_(policy.traits().scores == ScoreNeed::kAccumulated),
      goes_on_(accumulates_ && !scoring_.RestartsAtCut()),
      positions_(spec.num_layers, spec.num_kv_heads, capacity),
      sums_(spec.num_layers, spec.num_kv_heads, capacity),
      checkpoint_sums_(goes_on_ ? spec.num_layers : 0, spec.num_kv_heads,
                       capacity),
      input_begins_(static_cast<size_t>(capacity)) {}

ScoredState ScoredSlots::State() const {
  const int64_t resident =
      cut_due_ ? std::min(slots(), scoring_.budget_tokens()) : slots();
  return {.length = length_, .resident = resident, .input_end = input_end_};
}

std::vector<TextRange> ScoredSlots::AfterCut() const {
  const TextRange used{0, State().resident};
  if (used.empty()) return {};
  return {used};
}

int64_t ScoredSlots::MaxChunk() const {
  const int64_t cut = scoring_.NextCut(State());
  return cut == kUnlimited ? kUnlimited : cut - length_;
}

void ScoredSlots::Cut(const Move& move) {
  cut_due_ = false;
  const int64_t kept = scoring_.budget_tokens();
  if (slots() > kept) {
    const int heads = sums_.num_kv_heads();
    const int step = scoring_.scope() == ScoreScope::kLayer ? heads : 1;
    for (int layer = 0; layer < sums_.num_layers(); ++layer) {
      for (int head = 0; head < heads; head += step) {
        CutScope(layer, head, step, move);
      }
    }
    dropped_ = length_ - kept;
  }
  if (scoring_.RestartsAtCut()) cache::Clear(sums_, 0, slots());
  checkpoint_ = length_;
  if (goes_on_) checkpoint_sums_ = sums_;
}

void ScoredSlots::CutScope(int layer, int first_head, int heads,
                           const Move& move) {
  const auto used = static_cast<size_t>(slots());
  const absl::Span<const float> first = sums_.At(layer, first_head);
  std::vector<float> total(first.begin(), first.begin() + used);
  for (int head = first_head + 1; head < first_head + heads; ++head) {
    const absl::Span<const float> more = sums_.At(layer, head);
    for (size_t i = 0; i < used; ++i) total[i] += more[i];
  }
  const std::vector<int64_t> survivors = scoring_.Survivors(total);
  // One table of blocks serves all heads.
  if (static_cast<int64_t>(survivors.size()) != scoring_.budget_tokens()) {
    std::abort();
  }
  for (int head = first_head; head < first_head + heads; ++head) {
    move(layer, head, survivors);
    CloseUp(survivors, positions_.At(layer, head));
    CloseUp(survivors, sums_.At(layer, head));
  }
}

int64_t ScoredSlots::InputBegin() const {
  if (length_ == checkpoint_) return length_;
  return input_begins_[static_cast<size_t>(slots() - 1)];
}

void ScoredSlots::Begin(int64_t tokens, KvView* view) {
  const int64_t first = slots();
  // It would be another head's slot.
  if (first + tokens > positions_.capacity()) std::abort();
  const bool written = input_end_ <= length_;
  const int64_t begin = InputBegin();
  for (int64_t i = 0; i < tokens; ++i) {
    input_begins_[static_cast<size_t>(first + i)] =
        written ? length_ + i + 1 : begin;
  }
  for (int layer = 0; layer < positions_.num_layers(); ++layer) {
    for (int head = 0; head < positions_.num_kv_heads(); ++head) {
      const auto at = positions_.At(layer, head).subspan(first, tokens);
      for (int64_t i = 0; i < tokens; ++i) at[i] = length_ + i;
    }
  }
  cache::Clear(sums_, first, tokens);
  view->row_offset = dropped_;
  if (scoring_.KeepsTextDistances()) {
    for (KvRun& run : view->runs) run.rule.shift = -dropped_;
  } else {
    view->key_positions = &positions_;
  }
  AttentionSums attention{.row_weights = std::vector<float>(tokens),
                          .decay = scoring_.Decay(),
                          .sums = &sums_};
  if (scoring_.Weights(State(), absl::MakeSpan(attention.row_weights))) {
    view->attention = std::move(attention);
  }
}

void ScoredSlots::Commit(int64_t tokens) {
  length_ += tokens;
  cut_due_ = tokens > 0 && scoring_.CutsAt(State());
}

void ScoredSlots::Truncate(int64_t length) {
  assert(length >= EarliestCut() && length <= length_);
  if (length == length_) return;
  cut_due_ = false;
  if (goes_on_) return RestoreCheckpoint(length);
  // The row that would follow is of the same input, or the first of another.
  const int64_t begin =
      std::min(length, input_begins_[static_cast<size_t>(length - dropped_)]);
  checkpoint_ = std::min(checkpoint_, begin);
  length_ = std::max(begin, length - scoring_.HeldBackTokens());
  if (accumulates_) cache::Clear(sums_, 0, slots());
}

void ScoredSlots::ShortenInput(int64_t input_end) {
  if (goes_on_ || cut_due_ || length_ == checkpoint_) return;
  ScoredState endless = State();
  endless.input_end = kUnlimited;
  // The rows that count are those before this cut.
  if (scoring_.NextCut(endless) <= input_end) return;
  const int64_t length =
      std::max(InputBegin(), input_end - scoring_.HeldBackTokens());
  if (length >= length_) return;
  length_ = length;
  if (accumulates_) cache::Clear(sums_, 0, slots());
}

void ScoredSlots::RestoreCheckpoint(int64_t length) {
  if (length < checkpoint_) return Clear();
  length_ = checkpoint_;
  sums_ = checkpoint_sums_;
}

void ScoredSlots::Clear() {
  length_ = dropped_ = checkpoint_ = 0;
  cut_due_ = false;
}

ScoredRecord ScoredSlots::Record() const {
  return {.length = length_,
          .dropped = dropped_,
          .input_end = input_end_,
          .cut_due = cut_due_,
          .checkpoint = checkpoint_,
          .positions = positions_,
          .sums = sums_,
          .checkpoint_sums = checkpoint_sums_,
          .input_begins = input_begins_};
}

void ScoredSlots::Restore(const ScoredRecord& record) {
  length_ = record.length;
  dropped_ = record.dropped;
  input_end_ = record.input_end;
  cut_due_ = record.cut_due;
  checkpoint_ = record.checkpoint;
  positions_ = record.positions;
  sums_ = record.sums;
  checkpoint_sums_ = record.checkpoint_sums;
  input_begins_ = record.input_begins;
}

std::vector<TextRange> ScoredSlots::Held() const {
  std::vector<int64_t> held;
  for (int layer = 0; layer < positions_.num_layers(); ++layer) {
    for (int head = 0; head < positions_.num_kv_heads(); ++head) {
      const auto at = positions_.At(layer, head).first(slots());
      held.insert(held.end(), at.begin(), at.end());
    }
  }
  std::sort(held.begin(), held.end());
  std::vector<TextRange> ranges;
  for (const int64_t position : held) {
    if (!ranges.empty() && ranges.back().end >= position) {
      ranges.back().end = position + 1;
    } else {
      ranges.push_back({position, position + 1});
    }
  }
  return ranges;
}

}  // namespace millrace::cache
