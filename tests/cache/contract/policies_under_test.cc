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
      {"tova",
       {"tova:budget_tokens=1,evict_stride=1,sink_tokens=0,"
        "pin_system_prompt=false",
        "tova:budget_tokens=31,evict_stride=1,sink_tokens=4,recent_tokens=3,"
        "pin_system_prompt=false",
        "tova:budget_tokens=48,evict_stride=16,sink_tokens=16,recent_tokens=8,"
        "pin_system_prompt=false",
        "tova:budget_tokens=20,evict_stride=12,positions=text,"
        "pin_system_prompt=false",
        "tova:budget_tokens=110,evict_stride=7,pin_tokens=21"}},
      {"h2o",
       {"h2o:budget_tokens=12,evict_stride=4,sink_tokens=2,recent_tokens=5,"
        "pin_system_prompt=false",
        "h2o:budget_tokens=32,evict_stride=16,recent_tokens=12,scope=layer,"
        "pin_system_prompt=false",
        "h2o:budget_tokens=44,evict_stride=9,pin_tokens=21,recent_tokens=7,"
        "decay=1,pin_system_prompt=false",
        "h2o:budget_tokens=24,evict_stride=1,recent_tokens=20,"
        "pin_system_prompt=false",
        "h2o:budget_tokens=20,evict_stride=12,recent_tokens=6,positions=text,"
        "decay=0.9,pin_system_prompt=false"}},
      {"snapkv",
       {"snapkv:budget_tokens=2,segment_tokens=2,sink_tokens=0,vote_window=1,"
        "pool_kernel=1,pin_system_prompt=false",
        "snapkv:budget_tokens=12,segment_tokens=9,sink_tokens=2,vote_window=8,"
        "pool_kernel=3,pin_system_prompt=false",
        "snapkv:budget_tokens=32,segment_tokens=32,vote_window=16,"
        "pin_system_prompt=false",
        "snapkv:budget_tokens=44,segment_tokens=60,pin_tokens=21,"
        "vote_window=13,pool_kernel=7,pin_system_prompt=false",
        "snapkv:budget_tokens=30,segment_tokens=20,vote_window=6,"
        "positions=text,on_full=error,pin_system_prompt=false"}},
  };
  return *policies;
}

}  // namespace millrace::cache
