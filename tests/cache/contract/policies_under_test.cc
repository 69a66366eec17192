#include "tests/cache/contract/policies_under_test.h"

namespace millrace::cache {

// A line for each policy.
const std::vector<PolicyUnderTest>& PoliciesUnderTest() {
  static const auto* policies = new std::vector<PolicyUnderTest>{
      {"full", {"full:max_tokens=1", "full:max_tokens=300"}},
      {"window",
       {"window:window_tokens=1", "window:window_tokens=16",
        "window:window_tokens=77"}},
      {"sinks",
       {"sinks:sink_tokens=0,window_tokens=20",
        "sinks:sink_tokens=4,window_tokens=1",
        "sinks:sink_tokens=4,window_tokens=60",
        "sinks:sink_tokens=16,window_tokens=32",
        "sinks:sink_tokens=4,window_tokens=30,pin_tokens=37"}},
      {"reprefill",
       {"reprefill:window_tokens=1,rebuild_every=1",
        "reprefill:window_tokens=40,rebuild_every=1",
        "reprefill:window_tokens=40",
        "reprefill:window_tokens=33,rebuild_every=33",
        "reprefill:window_tokens=30,rebuild_every=7,pin_tokens=37"}},
      {"shift",
       {"shift:context_tokens=2,n_keep=0,n_discard=1,pin_system_prompt=false",
        "shift:context_tokens=64,n_keep=4,n_discard=1,pin_system_prompt=false",
        "shift:context_tokens=40,n_keep=0,pin_system_prompt=false",
        "shift:context_tokens=50,n_keep=4,n_discard=12,"
        "pin_system_prompt=false,pin_tokens=37",
        "shift:context_tokens=120,n_keep=4"}},
  };
  return *policies;
}

}  // namespace millrace::cache
