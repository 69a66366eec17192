// RepetitionGuard notices that a text goes round in circles: its last n tokens
// are one cycle, at least four times over.
//
// For every cycle length p up to n / 4 it counts for how many tokens now each
// has equalled the one p before it; n - p of them make the last n one cycle.
// n / 4 comparisons a token, without a branch.
#ifndef MILLRACE_SERVICES_ENGINE_REPETITION_GUARD_H_
#define MILLRACE_SERVICES_ENGINE_REPETITION_GUARD_H_

#include <cstdint>
#include <vector>

#include "services/engine/sampling/recent_tokens.h"

namespace millrace::engine {

class RepetitionGuard {
 public:
  // Looks at the last `tokens`; 0 switches it off. `recent` is borrowed and
  // remembers as many, or more.
  RepetitionGuard(int tokens, const RecentTokens* recent);

  // Takes the tokens that have come in since the last call, input included, and
  // says whether the text repeats itself.
  bool Repeats();

 private:
  void Take(int64_t age);

  const int tokens_;
  const RecentTokens* const recent_;
  int64_t taken_ = 0;  // of recent_->total()
  // [p - 1]: the newest tokens that equal the one p before them.
  std::vector<int32_t> equal_;
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_REPETITION_GUARD_H_
