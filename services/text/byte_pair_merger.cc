#include "services/text/byte_pair_merger.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <queue>
#include <tuple>

namespace millrace::text {
namespace {

// Up to here a scan for the best pair is faster than a heap.
constexpr size_t kShortPiece = 32;

}  // namespace

const BytePairMerger::Merge* BytePairMerger::Find(int32_t left,
                                                  int32_t right) const {
  const auto found = merges_.find(Key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void BytePairMerger::Encode(absl::string_view piece,
                            std::vector<int32_t>& ids) const {
  std::vector<int32_t> symbols;
  symbols.reserve(piece.size());
  for (char c : piece) symbols.push_back(byte_ids_[static_cast<uint8_t>(c)]);
  if (symbols.size() <= kShortPiece) {
    EncodeShort(symbols);
  } else {
    EncodeLong(symbols);
  }
  std::copy_if(symbols.begin(), symbols.end(), std::back_inserter(ids),
               [](int32_t id) { return id != kNoToken; });
}

void BytePairMerger::EncodeShort(std::vector<int32_t>& symbols) const {
  while (symbols.size() > 1) {
    int32_t best_rank = std::numeric_limits<int32_t>::max();
    size_t best = 0;
    int32_t merged = -1;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const Merge* merge = Find(symbols[i], symbols[i + 1]);
      if (merge == nullptr || merge->rank >= best_rank) continue;
      best_rank = merge->rank;
      best = i;
      merged = merge->merged;
    }
    if (merged < 0) return;
    symbols[best] = merged;
    symbols.erase(symbols.begin() + best + 1);
  }
}

// A linked list of symbols, and a heap of the pairs that could be merged: the
// lowest rank first, and of equal ones the leftmost.
void BytePairMerger::EncodeLong(std::vector<int32_t>& symbols) const {
  const int n = static_cast<int>(symbols.size());
  std::vector<int> next(n), previous(n);
  for (int i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  // Rank, position, and both symbols: a pair that has changed is stale.
  using Pair = std::tuple<int32_t, int, int32_t, int32_t>;
  std::priority_queue<Pair, std::vector<Pair>, std::greater<Pair>> heap;
  const auto push = [&](int left) {
    if (left < 0 || next[left] >= n) return;
    const Merge* merge = Find(symbols[left], symbols[next[left]]);
    if (merge == nullptr) return;
    heap.emplace(merge->rank, left, symbols[left], symbols[next[left]]);
  };
  for (int i = 0; i + 1 < n; ++i) push(i);
  while (!heap.empty()) {
    const auto [rank, left, first, second] = heap.top();
    heap.pop();
    const int right = next[left];
    if (symbols[left] != first || right >= n || symbols[right] != second) {
      continue;
    }
    symbols[left] = Find(first, second)->merged;
    symbols[right] = kNoToken;
    next[left] = next[right];
    if (next[left] < n) previous[next[left]] = left;
    push(previous[left]);
    push(left);
  }
}

}  // namespace millrace::text
