#include "services/engine/repetition_guard.h"

#include <algorithm>

namespace millrace::engine {

RepetitionGuard::RepetitionGuard(int tokens, const RecentTokens* recent)
    : tokens_(tokens),
      recent_(recent),
      equal_(static_cast<size_t>(tokens / 4)) {}

bool RepetitionGuard::Repeats() {
  if (equal_.empty()) return false;
  // Older ones than the last `tokens_` cannot matter.
  const int64_t fresh =
      std::min({recent_->total() - taken_, recent_->size(), int64_t{tokens_}});
  for (int64_t age = fresh - 1; age >= 0; --age) Take(age);
  taken_ = recent_->total();
  for (size_t i = 0; i < equal_.size(); ++i) {
    const int32_t cycle = static_cast<int32_t>(i) + 1;
    if (equal_[i] >= tokens_ - cycle) return true;
  }
  return false;
}

void RepetitionGuard::Take(int64_t age) {
  const int32_t id = recent_->Last(age);
  const int64_t before = recent_->size() - 1 - age;  // tokens older than it
  for (size_t i = 0; i < equal_.size(); ++i) {
    const int64_t cycle = static_cast<int64_t>(i) + 1;
    const bool same = cycle <= before && recent_->Last(age + cycle) == id;
    equal_[i] = same ? equal_[i] + 1 : 0;
  }
}

}  // namespace millrace::engine
