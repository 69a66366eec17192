#include "tests/cache/contract/scored_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/policies/registry.h"

namespace millrace::cache {
namespace {

constexpr int kLayers = 2, kKvHeads = 2, kQueryHeadsOfOne = 2;

KvSpec Shape(KvDtype dtype) {
  return {.num_layers = kLayers,
          .num_kv_heads = kKvHeads,
          .head_dim = 2,
          .dtype = dtype};
}

// A number of which every bit depends on every bit of `a` and `b`.
uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15u + b + 0x632be59bd9b4e019u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

template <class Action>
void ForEachHead(Action action) {
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int head = 0; head < kKvHeads; ++head) action(layer, head);
  }
}

// The keys of a block, one number of each, in the canonical form.
template <class Action>
void ForEachKey(const KvSpec& spec, Action action) {
  size_t at = 0;
  for (int layer = 0; layer < spec.num_layers; ++layer) {
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      for (int head = 0; head < spec.num_kv_heads; ++head) {
        action(layer, head, slot, at);
        at += static_cast<size_t>(spec.head_dim);
      }
    }
    at += static_cast<size_t>(kBlockTokens * spec.num_kv_heads * spec.head_dim);
  }
}

}  // namespace

NamedSlots::NamedSlots(const KvSpec& spec, int32_t num_blocks)
    : spec_(spec),
      num_blocks_(num_blocks),
      names_(static_cast<size_t>(spec.num_layers * spec.num_kv_heads *
                                 num_blocks * kBlockTokens),
             -1) {}

int64_t& NamedSlots::At(int layer, int kv_head, int32_t block, int slot) {
  const int head = layer * spec_.num_kv_heads + kv_head;
  return names_.at(
      static_cast<size_t>((head * num_blocks_ + block) * kBlockTokens + slot));
}

int64_t NamedSlots::At(int layer, int kv_head, int32_t block, int slot) const {
  return const_cast<NamedSlots*>(this)->At(layer, kv_head, block, slot);
}

void NamedSlots::Write(int layer, int kv_head, const KvView::Slot& slot,
                       int64_t name) {
  At(layer, kv_head, slot.block, slot.slot) = name;
  if (!slot.kv_block().wide()) return;
  At(layer, kv_head, slot.value_block, slot.slot) = name;
}

int64_t NamedSlots::Name(int layer, int kv_head,
                         const KvView::Slot& slot) const {
  const int64_t name = At(layer, kv_head, slot.block, slot.slot);
  if (!slot.kv_block().wide()) return name;
  return At(layer, kv_head, slot.value_block, slot.slot) == name ? name : -1;
}

absl::Status NamedSlots::MoveSlots(int layer, int kv_head,
                                   absl::Span<const SlotMove> moves) {
  for (const SlotMove& move : moves) {
    if (move.from.kv_block().wide() != move.to.kv_block().wide()) {
      violation_ = "a slot is moved to one of another kind";
    }
    Write(layer, kv_head, move.to, Name(layer, kv_head, move.from));
  }
  return absl::OkStatus();
}

absl::Status NamedSlots::ReadBlocks(absl::Span<const KvBlock> blocks,
                                    absl::Span<float> out) const {
  const auto size = static_cast<size_t>(CanonicalBlockValues(spec_));
  std::fill(out.begin(), out.end(), 0.0f);
  for (size_t i = 0; i < blocks.size(); ++i) {
    ForEachKey(spec_, [&](int layer, int head, int slot, size_t at) {
      out[i * size + at] = static_cast<float>(
          Name(layer, head, {blocks[i].block, slot, blocks[i].value_block}));
    });
  }
  return absl::OkStatus();
}

absl::Status NamedSlots::WriteBlocks(absl::Span<const KvBlock> blocks,
                                     absl::Span<const float> in) {
  const auto size = static_cast<size_t>(CanonicalBlockValues(spec_));
  for (size_t i = 0; i < blocks.size(); ++i) {
    ForEachKey(spec_, [&](int layer, int head, int slot, size_t at) {
      Write(layer, head, {blocks[i].block, slot, blocks[i].value_block},
            static_cast<int64_t>(in[i * size + at]));
    });
  }
  return absl::OkStatus();
}

int64_t NewestKept(const CachePolicy& policy) {
  const auto config = ParsePolicy(policy.ToString());
  return MakePolicy(*config, {.trained_context = int64_t{1} << 40,
                              .max_resident_tokens = int64_t{1} << 40,
                              .extra_tokens = 1})
      ->window_tokens;
}

ScoredCache::ScoredCache(const SequenceOptions& options, KvDtype dtype,
                         uint32_t seed, Chunks chunks)
    : storage_(Shape(dtype), static_cast<int32_t>(MaxBlocks(options, dtype))),
      manager_(Shape(dtype), storage_.num_blocks(), &storage_),
      id_(manager_.Open(options).value()),
      options_(options),
      prefix_(options.policy->traits().protected_prefix),
      newest_(NewestKept(*options.policy)),
      seed_(seed),
      chunks_(std::move(chunks)),
      held_(kLayers * kKvHeads) {}

bool ScoredCache::Read(const Names& names, bool ended) {
  text_.insert(text_.end(), names.begin(), names.end());
  if (!names.empty()) input_end_ = text_length();
  const int64_t held_back =
      ended ? 0 : options_.policy->scoring()->HeldBackTokens();
  return Compute(text_length() - held_back, ended ? input_end_ : kUnlimited,
                 false);
}

int64_t ScoredCache::Write(const Names& names) {
  if (!End()) return 0;
  for (size_t i = 0; i < names.size(); ++i) {
    text_.push_back(names[i]);
    if (Compute(text_length(), input_end_, true)) continue;
    text_.pop_back();
    return static_cast<int64_t>(i);
  }
  return static_cast<int64_t>(names.size());
}

absl::Status ScoredCache::CutTo(int64_t length) {
  if (length < this->length()) {
    const absl::Status status = manager_.Truncate(id_, length);
    if (!status.ok()) return status;
  } else {
    manager_.ShortenInput(id_, length);
  }
  text_.resize(static_cast<size_t>(length));
  rows_.resize(static_cast<size_t>(this->length()));
  input_end_ = std::min(input_end_, length);
  for (Names& held : held_) {
    while (!held.empty() && PositionOf(held.back()) >= this->length()) {
      held.pop_back();
    }
  }
  return absl::OkStatus();
}

void ScoredCache::Clear() {
  manager_.Clear(id_);
  text_.clear();
  rows_.clear();
  input_end_ = last_cut_ = 0;
  held_.assign(held_.size(), {});
}

void ScoredCache::Restore(const ScoredCache& other) {
  manager_.Close(id_);
  id_ = manager_.Restore(options_, other.manager_.Record(other.id_)).value();
  const std::vector<KvBlock> from = other.manager_.Blocks(other.id_);
  std::vector<float> copied(
      from.size() * static_cast<size_t>(CanonicalBlockValues(storage_.spec())));
  const std::vector<KvBlock> to = manager_.Blocks(id_);
  if (to.size() != from.size()) return Report("there are not as many blocks");
  (void)other.storage_.ReadBlocks(from, absl::MakeSpan(copied));
  (void)storage_.WriteBlocks(to, copied);
  text_ = other.text_;
  input_end_ = other.input_end_;
  rows_ = other.rows_;
  held_ = other.held_;
}

bool ScoredCache::Compute(int64_t end, int64_t input_end, bool one_by_one) {
  while (length() < end) {
    manager_.SetInputEnd(id_, input_end);
    const int64_t most = one_by_one ? 1 : chunks_();
    const int64_t tokens =
        std::min({end - length(), most, manager_.MaxChunk(id_)});
    if (!Append(tokens)) return false;
  }
  return true;
}

bool ScoredCache::Append(int64_t tokens) {
  const int64_t begin = length();
  const int64_t held = manager_.ResidentTokens(id_);
  const absl::StatusOr<KvView> view = manager_.Reserve(id_, tokens);
  if (!view.ok()) return false;
  const int64_t slots = begin - view->row_offset;
  if (slots < held) {
    last_cut_ = begin;
    held_after_cut_ = slots;
  }
  CheckHeld(*view, begin, slots);
  for (int64_t t = begin; t < begin + tokens; ++t) WriteRow(*view, t);
  rows_.resize(static_cast<size_t>(begin + tokens));
  for (int64_t t = begin; t < begin + tokens; ++t) ReadRow(*view, t);
  AddAttention(*view, begin, tokens);
  CheckUnion();
  manager_.Commit(id_);
  return true;
}

void ScoredCache::WriteRow(const KvView& view, int64_t t) {
  const KvView::Slot slot = view.Find(t - view.row_offset);
  ForEachHead([&](int layer, int head) {
    storage_.Write(layer, head, slot, text_[static_cast<size_t>(t)]);
    held_[static_cast<size_t>(layer * kKvHeads + head)].push_back(
        text_[static_cast<size_t>(t)]);
  });
}

void ScoredCache::ReadRow(const KvView& view, int64_t t) {
  uint64_t seen = 0;
  const int64_t row = t - view.row_offset;
  ForEachHead([&](int layer, int head) {
    for (const KvRun& run : view.runs) {
      const int64_t end = std::min(run.end_position(), row + 1);
      for (int64_t i = run.first_position; i < end; ++i) {
        const int64_t name = storage_.Name(layer, head, view.Find(i));
        const int64_t rotated = view.key_positions != nullptr
                                    ? i
                                    : PositionOf(name) - view.row_offset;
        const int64_t distance = run.rule.QueryPosition(row) - rotated;
        largest_distance_ = std::max(largest_distance_, distance);
        smallest_distance_ = std::min(smallest_distance_, distance);
        seen = Mix(Mix(seen, static_cast<uint64_t>(name)),
                   static_cast<uint64_t>(distance));
      }
    }
  });
  rows_[static_cast<size_t>(t)] = seen;
}

// As kv_view.h says, row by row, leaving nothing out.
void ScoredCache::AddAttention(const KvView& view, int64_t begin,
                               int64_t tokens) {
  if (!view.attention.has_value()) return;
  HeadTable<float>& sums = *view.attention->sums;
  sums_ = &sums;
  ForEachHead([&](int layer, int head) {
    const absl::Span<float> at = sums.At(layer, head);
    for (int64_t r = 0; r < tokens; ++r) {
      const int64_t row = text_[static_cast<size_t>(begin + r)];
      const int64_t end = begin + r - view.row_offset + 1;
      for (int64_t i = 0; i < end; ++i) {
        const int64_t key = storage_.Name(layer, head, view.Find(i));
        float sum = 0;
        for (int q = 0; q < kQueryHeadsOfOne; ++q) {
          sum += Attention(layer, head * kQueryHeadsOfOne + q, row, key);
        }
        at[i] = view.attention->decay * at[i] +
                view.attention->row_weights[static_cast<size_t>(r)] * sum;
      }
    }
  });
}

// Of five values under every second seed: many are equal.
float ScoredCache::Attention(int layer, int query_head, int64_t row,
                             int64_t key) const {
  const uint64_t pair =
      Mix(static_cast<uint64_t>(row), static_cast<uint64_t>(key));
  const uint64_t head = Mix(seed_, static_cast<uint64_t>(100 * layer)) +
                        static_cast<uint64_t>(query_head);
  const uint64_t values = seed_ % 2 == 0 ? 5 : 65536;
  return static_cast<float>(Mix(head, pair) % values) /
         static_cast<float>(values);
}

// Before the rows of a chunk from `begin` are written: what every head holds.
void ScoredCache::CheckHeld(const KvView& view, int64_t begin, int64_t slots) {
  ForEachHead([&](int layer, int head) {
    Names& before = held_[static_cast<size_t>(layer * kKvHeads + head)];
    Names now;
    for (int64_t i = 0; i < slots; ++i) {
      const int64_t name = storage_.Name(layer, head, view.Find(i));
      const int64_t position = PositionOf(name);
      now.push_back(name);
      if (name < 0 || position >= begin ||
          text_[static_cast<size_t>(position)] != name) {
        return Report(absl::StrCat("at ", begin, " tokens slot ", i,
                                   " holds none of the text"));
      }
      if (view.key_positions != nullptr &&
          view.key_positions->At(layer, head)[i] != position) {
        Report(absl::StrCat("at ", begin, " tokens slot ", i, " holds ",
                            position, ", not ",
                            view.key_positions->At(layer, head)[i]));
      }
      if (i < prefix_ && position != i) {
        Report(absl::StrCat("at ", begin, " tokens ", i, " is gone, of ",
                            prefix_, " protected ones"));
      }
      if (i >= slots - newest_ && position != begin - (slots - i)) {
        Report(absl::StrCat("at ", begin, " tokens ", begin - (slots - i),
                            " is gone, of the ", newest_, " newest"));
      }
    }
    if (!std::is_sorted(now.begin(), now.end()) ||
        !std::includes(before.begin(), before.end(), now.begin(), now.end())) {
      Report(absl::StrCat("at ", begin,
                          " tokens a head holds what it did not "
                          "hold before, or not in order"));
    }
    before = std::move(now);
  });
}

// What the manager calls resident is what some head holds.
void ScoredCache::CheckUnion() {
  Names all;
  for (const Names& held : held_) {
    all.insert(all.end(), held.begin(), held.end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  size_t i = 0;
  for (const TextRange& range : manager_.Resident(id_)) {
    for (int64_t p = range.begin; p < range.end; ++p, ++i) {
      if (i < all.size() && PositionOf(all[i]) == p) continue;
      return Report(absl::StrCat(p, " is not held, and said to be"));
    }
  }
  // Those of the chunk are not committed yet.
  if (i != all.size() && PositionOf(all[i]) < length()) {
    Report(absl::StrCat(PositionOf(all[i]), " is held, and not said to be"));
  }
}

std::vector<Names> ScoredCache::Held() const { return held_; }

std::vector<std::vector<float>> ScoredCache::Sums() const {
  std::vector<std::vector<float>> all;
  if (sums_ == nullptr) return all;
  ForEachHead([&](int layer, int head) {
    const size_t held =
        held_[static_cast<size_t>(layer * kKvHeads + head)].size();
    const auto at = sums_->At(layer, head).first(held);
    all.emplace_back(at.begin(), at.end());
  });
  return all;
}

std::string ScoredCache::violation() const {
  return violation_.empty() ? storage_.violation() : violation_;
}

void ScoredCache::Report(std::string violation) {
  if (violation_.empty()) violation_ = std::move(violation);
}

}  // namespace millrace::cache
