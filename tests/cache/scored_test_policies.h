// What the tests of tova, h2o and snapkv ask of a choice by attention.
#ifndef MILLRACE_TESTS_CACHE_SCORED_TEST_POLICIES_H_
#define MILLRACE_TESTS_CACHE_SCORED_TEST_POLICIES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/cache_policy.h"

namespace millrace::cache {

using Positions = std::vector<int64_t>;

inline Positions Survivors(const CachePolicy& policy,
                           const std::vector<float>& sums) {
  return policy.scoring()->Survivors(sums);
}

// How much each of `rows` rows counts; empty: none does.
inline std::vector<float> Weights(const CachePolicy& policy,
                                  const ScoredState& state, int64_t rows) {
  std::vector<float> weights(static_cast<size_t>(rows));
  if (!policy.scoring()->Weights(state, absl::MakeSpan(weights))) return {};
  return weights;
}

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_SCORED_TEST_POLICIES_H_
