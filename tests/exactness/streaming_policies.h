// The policies that exactness is tested with, each beside its definition.
#ifndef MILLRACE_TESTS_EXACTNESS_STREAMING_POLICIES_H_
#define MILLRACE_TESTS_EXACTNESS_STREAMING_POLICIES_H_

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/testing/dense_oracle.h"
#include "tests/testing/named_policy.h"

namespace millrace::testing {

// A definition that is wrong in one thing: what a test must tell apart.
struct Control {
  std::string name;
  Visibility visibility;
};

// Full text positions in, distances out.
struct StreamingPolicy {
  std::string name;
  std::string text;  // cache/policies/registry.h
  // Every row sees the first `sinks` tokens and the `window` before it.
  int64_t sinks = 0, window = 0;
  // C: the most tokens that a row sees beside itself, and its largest distance.
  int64_t cache = 0;
  Visibility visibility;
  std::vector<Control> controls;

  std::shared_ptr<const cache::CachePolicy> policy() const {
    return NamedPolicy(text);
  }

  friend std::ostream& operator<<(std::ostream& out,
                                  const StreamingPolicy& policy) {
    return out << policy.name;
  }
};

inline StreamingPolicy WithSinks(std::string name, std::string text, int64_t s,
                                 int64_t r) {
  StreamingPolicy policy{
      .name = std::move(name),
      .text = std::move(text),
      .sinks = s,
      .window = r,
      .cache = s + r,
      .visibility = SinksVisibility(s, r),
      .controls = {{"a window one longer", SinksVisibility(s, r + 1)},
                   {"a window one shorter", SinksVisibility(s, r - 1)},
                   {"one sink more", SinksVisibility(s + 1, r)}}};
  if (s == 0) return policy;
  policy.controls.push_back({"one sink fewer", SinksVisibility(s - 1, r)});
  policy.controls.push_back(
      {"sinks at their distance in the text", SinksAtTextDistances(s, r)});
  return policy;
}

inline StreamingPolicy Sinks(int64_t sinks, int64_t window) {
  return WithSinks(
      absl::StrCat("Sinks", sinks, "Window", window),
      absl::StrCat("sinks:sink_tokens=", sinks, ",window_tokens=", window),
      sinks, window);
}

// At most `context` tokens, of which `keep` stay and `discard` go at once.
inline StreamingPolicy Shift(int64_t context, int64_t keep, int64_t discard) {
  const auto as = [&](int64_t c, int64_t k, int64_t d) {
    return ShiftVisibility({.context = c, .keep = k, .discard = d});
  };
  return {
      .name = absl::StrCat("Shift", context, "Keep", keep, "Discard", discard),
      .text = absl::StrCat("shift:context_tokens=", context, ",n_keep=", keep,
                           ",n_discard=", discard),
      .sinks = keep,
      .window = context - keep - discard,
      .cache = context - 1,
      .visibility = as(context, keep, discard),
      .controls = {{"a context one longer", as(context + 1, keep, discard)},
                   {"a context one shorter", as(context - 1, keep, discard)},
                   {"one kept more", as(context, keep + 1, discard)},
                   {"one dropped more", as(context, keep, discard + 1)},
                   {"one dropped fewer", as(context, keep, discard - 1)},
                   {"kept tokens at their distance in the text",
                    ShiftVisibility({.context = context,
                                     .keep = keep,
                                     .discard = discard,
                                     .keep_distances = true})}}};
}

inline std::vector<StreamingPolicy> StreamingPolicies() {
  return {
      Sinks(0, 64),
      Sinks(1, 63),
      Sinks(4, 60),
      Sinks(8, 56),
      WithSinks("Window64", "window:window_tokens=64", 0, 64),
      Shift(64, 4, 30),
      WithSinks("Pinned20Window44",
                "sinks:sink_tokens=4,window_tokens=44,pin_tokens=20", 20, 44)};
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_EXACTNESS_STREAMING_POLICIES_H_
