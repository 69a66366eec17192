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
      state_{.positions = {spec.num_layers, spec.num_kv_heads, capacity},
             .sums = {spec.num_layers, spec.num_kv_heads, capacity},
             .checkpoint_sums = {goes_on_ ? spec.num_layers : 0,
                                 spec.num_kv_heads, capacity},
             .input_begins =
                 std::vector<int64_t>(static_cast<size_t>(capacity))} {}

ScoredState ScoredSlots::State() const {
  const int64_t resident =
      state_.cut_due ? std::min(slots(), scoring_.budget_tokens()) : slots();
  return {.length = state_.length,
          .resident = resident,
          .input_end = state_.input_end};
}

std::vector<TextRange> ScoredSlots::AfterCut() const {
  const TextRange used{0, State().resident};
  if (used.empty()) return {};
  return {used};
}

int64_t ScoredSlots::MaxChunk() const {
  const int64_t cut = scoring_.NextCut(State());
  return cut == kUnlimited ? kUnlimited : cut - state_.length;
}

void ScoredSlots::Cut(const Move& move) {
  state_.cut_due = false;
  const int64_t kept = scoring_.budget_tokens();
  if (slots() > kept) {
    const int heads = state_.sums.num_kv_heads();
    const int step = scoring_.scope() == ScoreScope::kLayer ? heads : 1;
    for (int layer = 0; layer < state_.sums.num_layers(); ++layer) {
      for (int head = 0; head < heads; head += step) {
        CutScope(layer, head, step, move);
      }
    }
    state_.dropped = state_.length - kept;
    survivors_.reset();
  }
  if (scoring_.RestartsAtCut()) cache::Clear(state_.sums, 0, slots());
  state_.checkpoint = state_.length;
  if (goes_on_) state_.checkpoint_sums = state_.sums;
}

void ScoredSlots::CutScope(int layer, int first_head, int heads,
                           const Move& move) {
  const auto used = static_cast<size_t>(slots());
  const absl::Span<const float> first = state_.sums.At(layer, first_head);
  std::vector<float> total(first.begin(), first.begin() + used);
  for (int head = first_head + 1; head < first_head + heads; ++head) {
    const absl::Span<const float> more = state_.sums.At(layer, head);
    for (size_t i = 0; i < used; ++i) total[i] += more[i];
  }
  const std::vector<int64_t> survivors = scoring_.Survivors(total);
  // One table of blocks serves all heads.
  if (static_cast<int64_t>(survivors.size()) != scoring_.budget_tokens()) {
    std::abort();
  }
  for (int head = first_head; head < first_head + heads; ++head) {
    move(layer, head, survivors);
    CloseUp(survivors, state_.positions.At(layer, head));
    CloseUp(survivors, state_.sums.At(layer, head));
  }
}

int64_t ScoredSlots::InputBegin() const {
  if (state_.length == state_.checkpoint) return state_.length;
  return state_.input_begins[static_cast<size_t>(slots() - 1)];
}

void ScoredSlots::Begin(int64_t tokens, KvView* view) {
  const int64_t first = slots();
  // It would be another head's slot.
  if (first + tokens > state_.positions.capacity()) std::abort();
  const bool written = state_.input_end <= state_.length;
  const int64_t begin = InputBegin();
  for (int64_t i = 0; i < tokens; ++i) {
    state_.input_begins[static_cast<size_t>(first + i)] =
        written ? state_.length + i + 1 : begin;
  }
  for (int layer = 0; layer < state_.positions.num_layers(); ++layer) {
    for (int head = 0; head < state_.positions.num_kv_heads(); ++head) {
      const auto at = state_.positions.At(layer, head).subspan(first, tokens);
      for (int64_t i = 0; i < tokens; ++i) at[i] = state_.length + i;
    }
  }
  cache::Clear(state_.sums, first, tokens);
  view->row_offset = state_.dropped;
  if (scoring_.KeepsTextDistances()) {
    for (KvRun& run : view->runs) run.rule.shift = -state_.dropped;
  } else {
    view->key_positions = &state_.positions;
  }
  AttentionSums attention{.row_weights = std::vector<float>(tokens),
                          .decay = scoring_.Decay(),
                          .sums = &state_.sums};
  if (scoring_.Weights(State(), absl::MakeSpan(attention.row_weights))) {
    view->attention = std::move(attention);
  }
}

void ScoredSlots::Commit(int64_t tokens) {
  state_.length += tokens;
  state_.cut_due = tokens > 0 && scoring_.CutsAt(State());
}

void ScoredSlots::Truncate(int64_t length) {
  assert(length >= EarliestCut() && length <= state_.length);
  if (length == state_.length) return;
  state_.cut_due = false;
  if (goes_on_) return RestoreCheckpoint(length);
  // The row that would follow is of the same input, or the first of another.
  const int64_t begin = std::min(
      length,
      state_.input_begins[static_cast<size_t>(length - state_.dropped)]);
  state_.checkpoint = std::min(state_.checkpoint, begin);
  state_.length = std::max(begin, length - scoring_.HeldBackTokens());
  if (accumulates_) cache::Clear(state_.sums, 0, slots());
}

void ScoredSlots::ShortenInput(int64_t input_end) {
  if (goes_on_ || state_.cut_due || state_.length == state_.checkpoint) return;
  ScoredState endless = State();
  endless.input_end = kUnlimited;
  // The rows that count are those before this cut.
  if (scoring_.NextCut(endless) <= input_end) return;
  const int64_t length =
      std::max(InputBegin(), input_end - scoring_.HeldBackTokens());
  if (length >= state_.length) return;
  state_.length = length;
  if (accumulates_) cache::Clear(state_.sums, 0, slots());
}

void ScoredSlots::RestoreCheckpoint(int64_t length) {
  if (length < state_.checkpoint) return Clear();
  state_.length = state_.checkpoint;
  state_.sums = state_.checkpoint_sums;
}

void ScoredSlots::Clear() {
  state_.length = state_.dropped = state_.checkpoint = 0;
  state_.cut_due = false;
}

std::vector<TextRange> ScoredSlots::Held() const {
  if (slots() == 0) return {};
  if (state_.dropped == 0) return {{0, state_.length}};
  if (!survivors_) survivors_ = Survivors();
  std::vector<TextRange> held = *survivors_;
  held.back().end = state_.length;  // the newest survives, and what follows it
  return held;
}

// A cut is seldom, and heads are many: kept until the next one.
std::vector<TextRange> ScoredSlots::Survivors() const {
  std::vector<int64_t> held;
  for (int layer = 0; layer < state_.positions.num_layers(); ++layer) {
    for (int head = 0; head < state_.positions.num_kv_heads(); ++head) {
      const auto at =
          state_.positions.At(layer, head).first(scoring_.budget_tokens());
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
