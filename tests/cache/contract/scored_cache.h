// A cache manager, its memory and its backend, for policies that choose by
// attention: every slot of every layer and KV head holds the name of the token
// that was written there, and the attention that a row pays to a token is a
// random number, fixed by a seed and the names of both.
//
// A name is a text position and how often the text had been cut back before:
// no two tokens of a case have the same.
#ifndef MILLRACE_TESTS_CACHE_CONTRACT_SCORED_CACHE_H_
#define MILLRACE_TESTS_CACHE_CONTRACT_SCORED_CACHE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cache/cache_manager.h"
#include "cache/kv_storage.h"

namespace millrace::cache {

// Names, where a backend has keys and values. Moves them as it is told, and
// takes note of a move that no backend has to carry out.
class NamedSlots final : public KvStorage {
 public:
  NamedSlots(const KvSpec& spec, int32_t num_blocks);

  const KvSpec& spec() const override { return spec_; }
  int32_t num_blocks() const override { return num_blocks_; }
  absl::Status ReadBlocks(absl::Span<const KvBlock> blocks,
                          absl::Span<float> out) const override;
  absl::Status WriteBlocks(absl::Span<const KvBlock> blocks,
                           absl::Span<const float> in) override;
  absl::Status MoveSlots(int layer, int kv_head,
                         absl::Span<const SlotMove> moves) override;

  void Write(int layer, int kv_head, const KvView::Slot& slot, int64_t name);
  // Of a wide pair, what both its blocks hold; -1 if they differ.
  int64_t Name(int layer, int kv_head, const KvView::Slot& slot) const;

  const std::string& violation() const { return violation_; }

 private:
  int64_t& At(int layer, int kv_head, int32_t block, int slot);
  int64_t At(int layer, int kv_head, int32_t block, int slot) const;

  const KvSpec spec_;
  const int32_t num_blocks_;
  std::vector<int64_t> names_;  // [layer][kv_head][num_blocks * kBlockTokens]
  std::string violation_;
};

using Names = std::vector<int64_t>;

inline int64_t NameOf(int64_t position, int64_t cuts) {
  return position * 256 + cuts % 256;
}
inline int64_t PositionOf(int64_t name) { return name / 256; }

// The newest tokens that `policy` always keeps, as its text form says.
int64_t NewestKept(const CachePolicy& policy);

// One sequence, in a pool of exactly the blocks that it may hold, read and
// written as the engine does it: the end of what is read is told once it is
// known, and the tokens whose rows then count are held back until it is.
class ScoredCache {
 public:
  // How many tokens to append at once, at most.
  using Chunks = std::function<int64_t()>;

  ScoredCache(const SequenceOptions& options, KvDtype dtype, uint32_t seed,
              Chunks chunks);

  // Tokens are read. Unless `ended`, others may follow in the same input.
  // False if the policy refuses.
  bool Read(const Names& names, bool ended = true);
  // Tokens are written, one by one, until one is refused; returns how many are.
  int64_t Write(const Names& names);
  // What was read so far has ended.
  bool End() { return Read({}); }
  // Cuts the text, and what of it is not yet in the cache, back to `length`.
  absl::Status CutTo(int64_t length);
  void Clear();

  // Becomes, with what it is asked to do from now on, what `other` is: by its
  // record and a copy of its blocks. REQUIRES: nothing done yet.
  void Restore(const ScoredCache& other);

  // The text, what is not yet in the cache included.
  int64_t text_length() const { return static_cast<int64_t>(text_.size()); }
  const Names& text() const { return text_; }
  int64_t input_end() const { return input_end_; }

  // By text position: a number for what the row of a token saw, in every head,
  // and from which distances.
  const std::vector<uint64_t>& rows() const { return rows_; }

  // What each head holds, layer by layer; in ascending positions.
  std::vector<Names> Held() const;
  // The sums that belong to them; empty if no row ever counted.
  std::vector<std::vector<float>> Sums() const;

  // The text length at the last append that found fewer tokens than the one
  // before it had left.
  int64_t last_cut() const { return last_cut_; }
  // Tokens that each head held after it.
  int64_t held_after_cut() const { return held_after_cut_; }
  int64_t largest_distance() const { return largest_distance_; }
  int64_t smallest_distance() const { return smallest_distance_; }

  // The first of what should never be, with its numbers; else empty.
  std::string violation() const;

  CacheManager& manager() { return manager_; }
  NamedSlots& storage() { return storage_; }
  SequenceId id() const { return id_; }
  int64_t length() const { return manager_.Length(id_); }

 private:
  bool Compute(int64_t end, int64_t input_end, bool one_by_one);
  bool Append(int64_t tokens);
  void WriteRow(const KvView& view, int64_t t);
  void ReadRow(const KvView& view, int64_t t);
  void AddAttention(const KvView& view, int64_t begin, int64_t tokens);
  float Attention(int layer, int query_head, int64_t row, int64_t key) const;
  void CheckHeld(const KvView& view, int64_t begin, int64_t slots);
  void CheckUnion();
  void Report(std::string violation);

  NamedSlots storage_;
  CacheManager manager_;
  SequenceId id_;
  const SequenceOptions options_;
  const int64_t prefix_, newest_;
  const uint32_t seed_;
  const Chunks chunks_;
  Names text_;
  int64_t input_end_ = 0;
  std::vector<uint64_t> rows_;
  std::vector<Names> held_;  // by head, after the last append
  const HeadTable<float>* sums_ = nullptr;
  int64_t last_cut_ = 0, held_after_cut_ = 0;
  int64_t largest_distance_ = 0, smallest_distance_ = 0;
  std::string violation_;
};

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_CONTRACT_SCORED_CACHE_H_
