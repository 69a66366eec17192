// BytePairMerger makes tokens of one piece of text: starting from its bytes it
// merges the pair of neighbours that was learnt first, until none is left
// (Sennrich et al., https://arxiv.org/abs/1508.07909).
//
// Costs n log n for a piece of n bytes. Thread-safe: immutable.
#ifndef MILLRACE_SERVICES_TEXT_BYTE_PAIR_MERGER_H_
#define MILLRACE_SERVICES_TEXT_BYTE_PAIR_MERGER_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace millrace::text {

class BytePairMerger {
 public:
  struct Merge {
    int32_t rank = 0;    // lower goes first
    int32_t merged = 0;  // token id of the pair
  };

  // For a byte that the vocabulary lacks: it is left out.
  static constexpr int32_t kNoToken = -1;

  // `byte_ids` are the tokens of single bytes.
  explicit BytePairMerger(const std::array<int32_t, 256>& byte_ids)
      : byte_ids_(byte_ids) {}

  // Keeps the first merge of a pair.
  void Add(int32_t left, int32_t right, Merge merge) {
    merges_.emplace(Key(left, right), merge);
  }

  // Appends the tokens of the piece.
  void Encode(absl::string_view piece, std::vector<int32_t>& ids) const;

 private:
  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  const Merge* Find(int32_t left, int32_t right) const;
  void EncodeShort(std::vector<int32_t>& symbols) const;
  void EncodeLong(std::vector<int32_t>& symbols) const;

  const std::array<int32_t, 256> byte_ids_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
};

}  // namespace millrace::text

#endif  // MILLRACE_SERVICES_TEXT_BYTE_PAIR_MERGER_H_
