// A policy's answer: what leaves the cache.
#ifndef MILLRACE_CACHE_EVICTION_PLAN_H_
#define MILLRACE_CACHE_EVICTION_PLAN_H_

#include <vector>

#include "cache/text_range.h"

namespace millrace::cache {

struct EvictionPlan {
  // Ascending, disjoint, all of it resident; often empty.
  std::vector<TextRange> evict;

  friend bool operator==(const EvictionPlan&, const EvictionPlan&) = default;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_EVICTION_PLAN_H_
