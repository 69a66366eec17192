// The random choices of one case of the policy contract.
#ifndef MILLRACE_TESTS_CACHE_CONTRACT_RANDOM_CASE_H_
#define MILLRACE_TESTS_CACHE_CONTRACT_RANDOM_CASE_H_

#include <cstdint>
#include <iterator>
#include <random>

#include "absl/types/span.h"
#include "cache/cache_policy.h"
#include "cache/kv_spec.h"

namespace millrace::cache {

// What happens to a text: some tokens more, some fewer, or all of them go.
struct Step {
  enum Kind { kAppend, kCut, kClear } kind;
  int64_t tokens;  // of kAppend and kCut
};

class RandomCase {
 public:
  explicit RandomCase(uint32_t seed)
      : random_(seed),
        max_chunk_(1 + Below(40)),
        hold_(Below(30)),
        dtype_(kKvDtypes[Below(std::size(kKvDtypes))].dtype) {}

  // The most tokens of one append, and those held for a rollback.
  int64_t max_chunk() const { return max_chunk_; }
  int64_t hold() const { return hold_; }
  // How keys and values are kept.
  KvDtype dtype() const { return dtype_; }

  // 0 .. end - 1.
  int64_t Below(int64_t end) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(end));
  }

  // A chunk: often a decode step, at times the longest there is.
  int64_t Chunk() {
    switch (Below(4)) {
      case 0:
        return 1;
      case 1:
        return max_chunk_;
      default:
        return 1 + Below(max_chunk_);
    }
  }

  Step NextStep() {
    const int64_t dice = Below(20);
    if (dice == 0) return {Step::kClear, 0};
    if (dice < 4) return {Step::kCut, Below(hold_ + 40)};
    return {Step::kAppend, Chunk()};
  }

  // A text position that `policy` reaches: near the start, where its window
  // fills, and on both sides of 2^32 if it goes on for ever.
  int64_t Position(const CachePolicy& policy) {
    const int64_t edge = policy.MaxDistance() + 1;
    if (!policy.traits().unbounded_stream) return Below(edge);
    constexpr int64_t kBeyond32Bits = int64_t{1} << 32;
    switch (Below(3)) {
      case 0:
        return Below(edge + 100);
      case 1:
        return kBeyond32Bits - edge + Below(2 * edge + 100);
      default:
        return Below(int64_t{1} << 50);
    }
  }

 private:
  std::mt19937_64 random_;
  const int64_t max_chunk_;
  const int64_t hold_;
  const KvDtype dtype_;
};

// Whether row `t` sees position `p` under `rules`.
inline bool Sees(absl::Span<const RunRule> rules, int64_t t, int64_t p) {
  for (const RunRule& rule : rules) {
    if (p < rule.begin || p >= rule.end || p > t) continue;
    if (t - p <= rule.window) return true;
  }
  return false;
}

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_CONTRACT_RANDOM_CASE_H_
