// The policies that choose by attention, each beside its definition, with a
// text and the models on which every choice is a clear one.
#ifndef MILLRACE_TESTS_EXACTNESS_SCORED_POLICIES_H_
#define MILLRACE_TESTS_EXACTNESS_SCORED_POLICIES_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "cache/policies/h2o_policy.h"
#include "cache/policies/snapkv_policy.h"
#include "cache/policies/tova_policy.h"
#include "tests/testing/scored_oracle.h"

namespace millrace::testing {

struct ScoredControl {
  std::string name;
  ScoredDefinition definition;
};

// The policy of a definition, whose first `pinned` tokens are a pinned prefix
// and not sinks.
inline std::shared_ptr<const cache::CachePolicy> NewScoredPolicy(
    const ScoredDefinition& d, int64_t pinned = 0) {
  constexpr int64_t kTrained = 8192;
  const cache::ScoredOptions options{.budget_tokens = d.budget,
                                     .stride = d.stride,
                                     .sink_tokens = pinned > 0 ? 2 : d.kept,
                                     .pinned_tokens = pinned,
                                     .recent_tokens = d.recent,
                                     .text_positions = d.text_distances};
  switch (d.choice) {
    case ScoredDefinition::Choice::kTova:
      return cache::NewTovaPolicy(options, kTrained).value();
    case ScoredDefinition::Choice::kH2o:
      return cache::NewH2oPolicy(
                 {.scored = options,
                  .decay = d.decay,
                  .scope = d.by_layer ? cache::ScoreScope::kLayer
                                      : cache::ScoreScope::kHead},
                 kTrained)
          .value();
    case ScoredDefinition::Choice::kSnapkv:
      return cache::NewSnapkvPolicy({.scored = options, .pool_kernel = d.pool},
                                    kTrained)
          .value();
  }
  return nullptr;
}

struct ScoredPolicyCase {
  std::string name;
  ScoredDefinition definition;
  int num_heads = 4, num_kv_heads = 2;
  // Of the texts that are read with f32 and f16 caches.
  uint64_t f32_seed = 1, f16_seed = 1;
  int64_t pinned = 0;  // of definition.kept, the rest are sinks

  int64_t tokens() const { return 8 * definition.budget; }
  bool decodes_apart() const {
    return definition.choice == ScoredDefinition::Choice::kSnapkv;
  }

  std::shared_ptr<const cache::CachePolicy> policy() const {
    return NewScoredPolicy(definition, pinned);
  }

  // What is read: much, little, and much again; a little is written between.
  std::vector<Input> inputs() const {
    if (!decodes_apart()) return {{0, tokens()}};
    const ScoredDefinition& d = definition;
    const int64_t sizes[] = {3 * d.budget + 5, d.recent - 1, d.budget / 2,
                             2 * d.budget};
    const int64_t written = std::min<int64_t>(6, d.stride - d.recent);
    std::vector<Input> inputs;
    int64_t begin = 0;
    for (int i = 0; begin < tokens(); ++i) {
      const int64_t end = std::min(begin + sizes[i % 4], tokens());
      inputs.push_back({begin, end});
      begin = end + written;
    }
    return inputs;
  }

  std::vector<ScoredControl> controls() const {
    std::vector<ScoredControl> controls;
    const auto add = [&](const char* name, auto change) {
      controls.push_back({name, definition});
      change(controls.back().definition);
    };
    using D = ScoredDefinition;
    const D& d = definition;
    add("a budget one larger", [](D& w) { ++w.budget; });
    add("a stride one longer", [](D& w) { ++w.stride; });
    add("one recent token more", [](D& w) { ++w.recent; });
    // Without decay the oldest stay, protected or not.
    if (d.choice != D::Choice::kH2o || d.decay < 1) {
      add("one kept more", [](D& w) { ++w.kept; });
      if (d.kept > 0) add("one kept fewer", [](D& w) { --w.kept; });
    }
    add("other distances", [](D& w) { w.text_distances = !w.text_distances; });
    if (d.budget > d.kept + d.recent) {
      add("a budget one smaller", [](D& w) { --w.budget; });
    }
    if (d.stride > 1) add("a stride one shorter", [](D& w) { --w.stride; });
    if (d.recent > 1) add("one recent token fewer", [](D& w) { --w.recent; });
    if (num_heads > num_kv_heads) {
      add("one query head of a group", [](D& w) { w.one_query_head = true; });
    }
    if (d.decay < 1) add("no decay", [](D& w) { w.decay = 1; });
    if (d.choice == D::Choice::kH2o && num_kv_heads > 1) {
      add("another scope", [](D& w) { w.by_layer = !w.by_layer; });
    }
    if (d.pool > 1) add("no pooling", [](D& w) { w.pool = 1; });
    if (d.choice == D::Choice::kSnapkv) {
      add("votes of the rows before", [](D& w) { w.votes_early = 1; });
    }
    return controls;
  }

  friend std::ostream& operator<<(std::ostream& out,
                                  const ScoredPolicyCase& policy) {
    return out << policy.name;
  }
};

inline std::vector<ScoredPolicyCase> ScoredPolicyCases() {
  using enum ScoredDefinition::Choice;
  return {
      {.name = "TovaEachToken",
       .definition = {.choice = kTova, .budget = 32, .stride = 1},
       .f16_seed = 5},
      {.name = "TovaStride7",
       .definition = {.choice = kTova, .budget = 40, .stride = 7, .recent = 3},
       .f16_seed = 950},
      {.name = "TovaStride32InTheText",
       .definition = {.choice = kTova,
                      .budget = 24,
                      .stride = 32,
                      .kept = 0,
                      .text_distances = true},
       .f16_seed = 4},
      {.name = "TovaPinnedOneKvHead",
       .definition = {.choice = kTova, .budget = 36, .stride = 32, .kept = 9},
       .num_kv_heads = 1,
       .f16_seed = 11,
       .pinned = 9},
      {.name = "H2oEachToken",
       .definition = {.choice = kH2o,
                      .budget = 32,
                      .stride = 1,
                      .recent = 8,
                      .decay = 0.9},
       .f16_seed = 48},
      {.name = "H2oNoDecay",
       .definition = {.choice = kH2o, .budget = 40, .stride = 7, .recent = 20}},
      {.name = "H2oStride7",
       .definition = {.choice = kH2o,
                      .budget = 32,
                      .stride = 7,
                      .recent = 12,
                      .decay = 0.9},
       .f16_seed = 517},
      {.name = "H2oStride32ByLayer",
       .definition = {.choice = kH2o,
                      .budget = 40,
                      .stride = 32,
                      .recent = 16,
                      .by_layer = true,
                      .decay = 0.8},
       .f16_seed = 33},
      {.name = "H2oInTheTextOneKvHead",
       .definition = {.choice = kH2o,
                      .budget = 24,
                      .stride = 7,
                      .kept = 3,
                      .recent = 3,
                      .decay = 0.7,
                      .text_distances = true},
       .num_kv_heads = 1,
       .f16_seed = 24},
      {.name = "H2oPinnedNoGroups",
       .definition = {.choice = kH2o,
                      .budget = 32,
                      .stride = 32,
                      .kept = 10,
                      .recent = 6,
                      .decay = 0.8},
       .num_kv_heads = 4,
       .f16_seed = 39,
       .pinned = 10},
      {.name = "Snapkv",
       .definition = {.choice = kSnapkv,
                      .budget = 32,
                      .stride = 32,
                      .recent = 8,
                      .pool = 5},
       .f16_seed = 361},
      {.name = "SnapkvPinned",
       .definition = {.choice = kSnapkv,
                      .budget = 40,
                      .stride = 30,
                      .kept = 11,
                      .recent = 4,
                      .pool = 3},
       .f32_seed = 2,
       .f16_seed = 2046,
       .pinned = 11},
      {.name = "SnapkvInTheTextOneKvHead",
       .definition = {.choice = kSnapkv,
                      .budget = 32,
                      .stride = 40,
                      .kept = 0,
                      .recent = 6,
                      .pool = 1,
                      .text_distances = true},
       .num_kv_heads = 1,
       .f32_seed = 2,
       .f16_seed = 11},
  };
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_EXACTNESS_SCORED_POLICIES_H_
