#include "services/engine/sampling/choose.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "services/engine/sampling/scan.h"

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
// not drop a token that is just likely enough. Where top_p counts with the
// tokens that top_k kept, these are needed, too.
float LeastLogit(const SamplingOptions& options, float largest) {
  const bool counts_tokens = options.top_k > 0 && options.top_p < 1.0f;
  if (options.min_p <= 0 || counts_tokens) return -HUGE_VALF;
  return largest + options.temperature * std::log(options.min_p) * 1.0001f -
         1e-3f;
}

// Keeps the memory of a choice for the next one, on whichever thread.
struct Scratch {
  std::vector<Candidate> candidates;
  std::vector<double> sums;  // of the weights of the first 1, 2, ... tokens
};

Scratch& ScratchOfThisThread() {
  thread_local Scratch scratch;
  return scratch;
}

// One choice.
class Choice {
 public:
  Choice(const SamplingOptions& options, absl::Span<const float> logits,
         float largest, double uniform)
      : options_(options),
        logits_(logits),
        largest_(largest),
        weight_(largest, options.temperature),
        uniform_(uniform),
        top_k_(options.top_k <= 0
                   ? logits.size()
                   : std::min<size_t>(options.top_k, logits.size())) {}

  // Chooses among the tokens whose logits are at least `least`; -1 if others
  // could be chosen too. `all`: there are no others.
  int32_t Among(float least, bool all) {
    Candidates candidates(logits_, least, &scratch_.candidates);
    if (!all && top_k_ < logits_.size() && candidates.size() < top_k_) {
      return -1;
    }
    const double total = TotalWeight(candidates);
    if (!Keep(candidates, total) && !all) return -1;
    const std::vector<double>& sums = scratch_.sums;
    const double point = uniform_ * (Unfiltered() ? total : sums.back());
    const auto chosen = std::upper_bound(sums.begin(), sums.end() - 1, point);
    return candidates[static_cast<size_t>(chosen - sums.begin())].id;
  }

 private:
  // The sum of what is kept is then known beforehand, and the choice needs no
  // token beyond the one it falls on.
  bool Unfiltered() const {
    return options_.top_p >= 1.0f && options_.min_p <= 0;
  }

  // What top_p counts with: the tokens that top_k kept.
  double TotalWeight(Candidates& candidates) const {
    double total = 0;
    if (!Unfiltered() && options_.top_p >= 1.0f) return total;  // unused
    if (top_k_ == logits_.size()) {
      return SumOfWeights(logits_, largest_, options_.temperature);
    }
    const size_t kept = std::min(top_k_, candidates.size());
    for (size_t i = 0; i < kept; ++i) total += weight_(candidates[i].logit);
    return total;
  }

  // Fills `sums` with the tokens that are kept, as far as the choice needs
  // them. False if it ran out of candidates.
  bool Keep(Candidates& candidates, double total) {
    std::vector<double>& sums = scratch_.sums;
    sums.clear();
    const size_t most = std::min(top_k_, candidates.size());
    for (size_t rank = 0; rank < most; ++rank) {
      const double weight = weight_(candidates[rank].logit);
      if (rank > 0 && (weight < options_.min_p || weight == 0)) return true;
      sums.push_back((sums.empty() ? 0 : sums.back()) + weight);
      if (Unfiltered() && sums.back() > uniform_ * total) return true;
      if (options_.top_p < 1.0f && sums.back() >= options_.top_p * total) {
        return true;
      }
    }
    return most == top_k_;
  }

  const SamplingOptions& options_;
  const absl::Span<const float> logits_;
  const float largest_;
  const RelativeWeight weight_;
  const double uniform_;
  const size_t top_k_;
  Scratch& scratch_ = ScratchOfThisThread();
};

}  // namespace

int32_t Greedy(absl::Span<const float> logits) {
  return static_cast<int32_t>(IndexOf(logits, Largest(logits)));
}

int32_t Choose(const SamplingOptions& options, absl::Span<const float> logits,
               double uniform) {
  const float largest = Largest(logits);
  if (std::isinf(largest)) return Greedy(logits);
  Choice choice(options, logits, largest, uniform);
  const float least = LeastLogit(options, largest);
  // Nearly always the choice falls on the few tokens that are at most e^8 times
  // less likely than the first, or e^16 times; only they are put in order.
  for (const float times : {8.0f, 16.0f}) {
    const float likely = largest - times * options.temperature;
    if (likely <= least) break;
    const int32_t id = choice.Among(likely, /*all=*/false);
    if (id >= 0) return id;
  }
  return choice.Among(least, /*all=*/true);
}

int32_t Choose(const backends::RowSampling& sampling,
               absl::Span<const float> logits) {
  if (sampling.temperature <= 0) return Greedy(logits);
  return Choose({.temperature = sampling.temperature,
                 .top_k = sampling.top_k,
                 .top_p = sampling.top_p,
                 .min_p = sampling.min_p},
                logits, sampling.uniform);
}

}  // namespace millrace::engine
