#include "backends/reference/attention_sums.h"

#include <algorithm>

#include "cache/head_table.h"

namespace millrace::backends::reference {

void Probabilities::Set(int row, int head, int64_t begin,
                        absl::Span<const float> values) {
  std::copy(values.begin(), values.end(),
            values_.begin() + Offset(row, head) + begin);
}

void AddToSums(int layer, const Probabilities& probabilities,
               const cache::AttentionSums& asked) {
  const int heads_per_kv_head =
      probabilities.num_heads() / asked.sums->num_kv_heads();
  for (int kv_head = 0; kv_head < asked.sums->num_kv_heads(); ++kv_head) {
    const absl::Span<float> sums = asked.sums->At(layer, kv_head);
    for (size_t row = 0; row < asked.row_weights.size(); ++row) {
      for (size_t i = 0; i < sums.size(); ++i) {
        float sum = 0;
        for (int h = 0; h < heads_per_kv_head; ++h) {
          sum += probabilities.At(row, kv_head * heads_per_kv_head + h)[i];
        }
        sums[i] = asked.decay * sums[i] + asked.row_weights[row] * sum;
      }
    }
  }
}

}  // namespace millrace::backends::reference
