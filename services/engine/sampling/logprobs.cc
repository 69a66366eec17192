#include "services/engine/sampling/logprobs.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "services/engine/sampling/scan.h"

namespace millrace::engine {
namespace {

using Entry = std::pair<int32_t, float>;

bool Likelier(const Entry& a, const Entry& b) {
  return a.second != b.second ? a.second > b.second : a.first < b.first;
}

// The `top` largest logits with their ids. The heap's front is the first to go.
std::vector<Entry> Likeliest(absl::Span<const float> logits, size_t top) {
  std::vector<Entry> heap;
  for (size_t i = 0; i < logits.size() && top > 0; ++i) {
    const Entry entry{static_cast<int32_t>(i), logits[i]};
    if (heap.size() == top) {
      if (!Likelier(entry, heap.front())) continue;
      std::pop_heap(heap.begin(), heap.end(), Likelier);
      heap.pop_back();
    }
    heap.push_back(entry);
    std::push_heap(heap.begin(), heap.end(), Likelier);
  }
  std::sort_heap(heap.begin(), heap.end(), Likelier);
  return heap;
}

}  // namespace

double LogSumExp(absl::Span<const float> logits) {
  const float largest = Largest(logits);
  return largest + std::log(SumOfWeights(logits, largest, 1.0f));
}

TokenLogprobs LogprobsOf(absl::Span<const float> logits, int32_t token_id,
                         int top) {
  const double total = LogSumExp(logits);
  const auto logprob = [&](float logit) {
    return static_cast<float>(logit - total);
  };
  TokenLogprobs result;
  result.token_id = token_id;
  result.logprob = logprob(logits[static_cast<size_t>(token_id)]);
  result.top = Likeliest(logits, static_cast<size_t>(top));
  for (auto& [id, value] : result.top) value = logprob(value);
  return result;
}

}  // namespace millrace::engine
