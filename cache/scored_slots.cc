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
      positions_(spec.num_layers, spec.num_kv_heads, capacity),
      sums_(spec.num_layers, spec.num_kv_heads, capacity),
      checkpoint_sums_(accumulates_ ? spec.num_layers : 0, spec.num_kv_heads,
                       capacity) {}

ScoredState ScoredSlots::State() const {
  const int64_t resident =
      cut_due_ ? std::min(slots(), scoring_.budget_tokens()) : slots();
  return {.length = length_, .resident = resident, .input_end = input_end_};
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
  Checkpoint();
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

void ScoredSlots::Checkpoint() {
  checkpoint_ = counted_end_ = length_;
  if (accumulates_) checkpoint_sums_ = sums_;
}

void ScoredSlots::Begin(int64_t tokens, KvView* view) {
  const int64_t first = slots();
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
  counts_ = scoring_.Weights(State(), absl::MakeSpan(attention.row_weights));
  if (counts_) view->attention = std::move(attention);
}

void ScoredSlots::Commit(int64_t tokens) {
  length_ += tokens;
  if (counts_) counted_end_ = length_;
  cut_due_ = tokens > 0 && scoring_.CutsAt(State());
}

void ScoredSlots::Truncate(int64_t length) {
  assert(length >= EarliestCut() && length <= length_);
  cut_due_ = cut_due_ && length == length_;
  if (!accumulates_ || length >= counted_end_) {
    length_ = length;
  } else {
    Restore(length >= checkpoint_ ? checkpoint_ : 0);
  }
}

void ScoredSlots::Restore(int64_t length) {
  if (length == 0) {
    Clear();
    return;
  }
  length_ = counted_end_ = length;
  sums_ = checkpoint_sums_;
}

void ScoredSlots::Clear() {
  length_ = dropped_ = checkpoint_ = counted_end_ = 0;
  cut_due_ = false;
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
