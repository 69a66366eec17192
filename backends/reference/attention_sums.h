// How much attention the rows of a chunk pay to what is in the cache, as
// cache/kv_view.h defines it.
#ifndef MILLRACE_BACKENDS_REFERENCE_ATTENTION_SUMS_H_
#define MILLRACE_BACKENDS_REFERENCE_ATTENTION_SUMS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/kv_view.h"

namespace millrace::backends::reference {

// What each query head of each row of a chunk gives to each cache position: 0
// to those that the row does not see.
//
// Different rows and heads may be set by different threads at once.
class Probabilities {
 public:
  // capacity 0: nobody asks, nothing is set.
  Probabilities(int rows, int num_heads, int64_t capacity)
      : num_heads_(num_heads),
        capacity_(capacity),
        values_(static_cast<size_t>(rows * num_heads * capacity)) {}

  int num_heads() const { return num_heads_; }

  // [capacity]
  absl::Span<const float> At(int row, int head) const {
    return absl::MakeConstSpan(values_).subspan(Offset(row, head), capacity_);
  }

  // Sets those of the cache positions `begin`, begin + 1, ...
  void Set(int row, int head, int64_t begin, absl::Span<const float> values);

 private:
  size_t Offset(int row, int head) const {
    return static_cast<size_t>((int64_t{row} * num_heads_ + head) * capacity_);
  }

  const int num_heads_;
  const int64_t capacity_;
  std::vector<float> values_;  // [row][head][capacity]
};

// Adds one layer's to what was asked for.
void AddToSums(int layer, const Probabilities& probabilities,
               const cache::AttentionSums& asked);

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_ATTENTION_SUMS_H_
