// The policies that exactness is tested with, each beside its definition.
#ifndef MILLRACE_TESTS_EXACTNESS_STREAMING_POLICIES_H_
#define MILLRACE_TESTS_EXACTNESS_STREAMING_POLICIES_H_

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/testing/dense_oracle.h"
#include "tests/testing/named_policy.h"

namespace millrace::testing {

// S protected tokens and a window of R: full text positions in, distances out.
struct StreamingPolicy {
  std::string name;
  std::string text;  // cache/policies/registry.h
  int64_t sinks = 0, window = 0;

  int64_t cache() const { return sinks + window; }  // C
  std::shared_ptr<const cache::CachePolicy> policy() const {
    return NamedPolicy(text);
  }
  Visibility visibility() const { return SinksVisibility(sinks, window); }

  friend std::ostream& operator<<(std::ostream& out,
                                  const StreamingPolicy& policy) {
    return out << policy.name;
  }
};

inline StreamingPolicy Sinks(int64_t sinks, int64_t window) {
  return {absl::StrCat("Sinks", sinks, "Window", window),
          absl::StrCat("sinks:sink_tokens=", sinks, ",window_tokens=", window),
          sinks, window};
}

inline std::vector<StreamingPolicy> StreamingPolicies() {
  return {Sinks(0, 64),
          Sinks(1, 63),
          Sinks(4, 60),
          Sinks(8, 56),
          {"Window64", "window:window_tokens=64", 0, 64},
          {"Pinned20Window44",
           "sinks:sink_tokens=4,window_tokens=44,pin_tokens=20", 20, 44}};
}

// Definitions that are wrong in one thing: what a test must tell apart.
struct Control {
  std::string name;
  Visibility visibility;
};

inline std::vector<Control> Controls(const StreamingPolicy& policy) {
  const int64_t s = policy.sinks, r = policy.window;
  std::vector<Control> controls = {
      {"a window one longer", SinksVisibility(s, r + 1)},
      {"a window one shorter", SinksVisibility(s, r - 1)},
      {"one sink more", SinksVisibility(s + 1, r)}};
  if (s == 0) return controls;
  controls.push_back({"one sink fewer", SinksVisibility(s - 1, r)});
  controls.push_back(
      {"sinks at their distance in the text", SinksAtTextDistances(s, r)});
  return controls;
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_EXACTNESS_STREAMING_POLICIES_H_
