#include "services/engine/sampling/choose.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace millrace::engine {
namespace {

struct Candidate {
  float logit;
  int32_t id;
};

bool Likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// The candidates of one choice, likeliest first as far as they were asked for:
// a heap sorts no more of the vocabulary than a choice looks at.
class Candidates {
 public:
  // Takes the ids whose logits are at least `least`. `memory` is borrowed.
  Candidates(absl::Span<const float> logits, float least,
             std::vector<Candidate>* memory)
      : candidates_(*memory) {
    candidates_.clear();
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] >= least) {
        candidates_.push_back({logits[i], static_cast<int32_t>(i)});
      }
    }
    std::make_heap(candidates_.begin(), candidates_.end(), Later);
  }

  size_t size() const { return candidates_.size(); }

  // The candidate that is likelier than all but the first `rank`.
  // REQUIRES: rank < size().
  const Candidate& operator[](size_t rank) {
    while (sorted_ <= rank) {
      std::pop_heap(candidates_.begin(),
                    candidates_.end() - static_cast<int64_t>(sorted_), Later);
      ++sorted_;
    }
    return candidates_[candidates_.size() - 1 - rank];
  }

 private:
  static bool Later(const Candidate& a, const Candidate& b) {
    return Likelier(b, a);
  }

  std::vector<Candidate>& candidates_;  // a heap, then the sorted ones
  size_t sorted_ = 0;
};

// How likely a token is, as a multiple of the likeliest.
class RelativeWeight {
 public:
  RelativeWeight(float largest, float temperature)
      : largest_(largest), temperature_(temperature) {}
  double operator()(float logit) const {
    if (logit == largest_) return 1.0;
    return std::exp((logit - largest_) / temperature_);
  }

 private:
  const float largest_;
  const float temperature_;
};

// The smallest logit that min_p lets through, or a little less: rounding must
// not drop a token that is just likely enough.
float LeastLogit(const SamplingOptions& options, float largest) {
  if (options.min_p <= 0) return -HUGE_VALF;
  return largest + options.temperature * std::log(options.min_p) * 1.0001f -
         1e-3f;
}

// The total weight that top_p counts with: of the top_k tokens, or of all.
double TotalWeight(absl::Span<const float> logits, const RelativeWeight& weight,
                   size_t top_k, std::vector<float>* memory) {
  double total = 0;
  if (top_k >= logits.size()) {
    for (const float logit : logits) total += weight(logit);
    return total;
  }
  memory->assign(logits.begin(), logits.end());
  std::nth_element(memory->begin(),
                   memory->begin() + static_cast<int64_t>(top_k) - 1,
                   memory->end(), std::greater<float>());
  for (size_t i = 0; i < top_k; ++i) total += weight((*memory)[i]);
  return total;
}

// Keeps the memory of a choice for the next one, on whichever thread.
struct Scratch {
  std::vector<Candidate> candidates;
  std::vector<double> sums;
  std::vector<float> logits;
};

Scratch& ScratchOfThisThread() {
  thread_local Scratch scratch;
  return scratch;
}

}  // namespace

int32_t Greedy(absl::Span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) -
                              logits.begin());
}

int32_t Choose(const SamplingOptions& options, absl::Span<const float> logits,
               double uniform) {
  Scratch& scratch = ScratchOfThisThread();
  const float largest = *std::max_element(logits.begin(), logits.end());
  if (std::isinf(largest)) return Greedy(logits);
  const RelativeWeight weight(largest, options.temperature);
  const size_t top_k = options.top_k <= 0
                           ? logits.size()
                           : std::min<size_t>(options.top_k, logits.size());
  // Without top_p and min_p the sum of what is kept is known beforehand, and
  // the choice needs no token beyond the one it falls on.
  const bool known = options.top_p >= 1.0f && options.min_p <= 0;
  const double total = known || options.top_p < 1.0f
                           ? TotalWeight(logits, weight, top_k, &scratch.logits)
                           : 0;
  const double enough = known                  ? uniform * total
                        : options.top_p < 1.0f ? options.top_p * total
                                               : HUGE_VAL;

  Candidates candidates(logits, LeastLogit(options, largest),
                        &scratch.candidates);
  std::vector<double>& sums = scratch.sums;  // of the weights kept so far
  sums.clear();
  for (size_t rank = 0; rank < std::min(top_k, candidates.size()); ++rank) {
    const double w = weight(candidates[rank].logit);
    if (rank > 0 && (w < options.min_p || w == 0)) break;
    sums.push_back((sums.empty() ? 0 : sums.back()) + w);
    if (known ? sums.back() > enough : sums.back() >= enough) break;
  }
  const double point = uniform * (known ? total : sums.back());
  const auto chosen = std::upper_bound(sums.begin(), sums.end() - 1, point);
  return candidates[static_cast<size_t>(chosen - sums.begin())].id;
}

}  // namespace millrace::engine
