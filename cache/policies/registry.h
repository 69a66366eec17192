// Every cache policy by name: from the text form to an object. The visible
// list is in registry.cc; adding one: README.md in this folder.
//
//   auto config = ParsePolicy("sinks:sink_tokens=4,window_tokens=1020");
//   auto made = MakePolicy(*config, {.trained_context = 8192, ...});
//   made->policy, made->text
//
// A PolicyConfig names options as its proto message names its fields, so that
// messages and text forms convert without knowing any policy.
#ifndef MILLRACE_CACHE_POLICIES_REGISTRY_H_
#define MILLRACE_CACHE_POLICIES_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cache/cache_policy.h"

namespace millrace::cache {

// A policy as it was asked for; options that are absent take their defaults.
struct PolicyConfig {
  std::string name = "sinks";
  // Option and value as in the text form; names are distinct.
  std::vector<std::pair<std::string, std::string>> options;

  friend bool operator==(const PolicyConfig&, const PolicyConfig&) = default;
};

// What a policy is to run on.
struct PolicyBackend {
  std::string name;  // as in --backend
  bool attention_scores = true;
};

// What defaults and limits depend on.
struct PolicyContext {
  int64_t trained_context = 0;  // of the model
  int64_t pinned_tokens = 0;    // of the system block; 0: none
  // The most tokens that the sequence may hold (a memory limit), and those it
  // holds beyond what is visible: one chunk and the rollback hold.
  int64_t max_resident_tokens = 0;
  int64_t extra_tokens = 0;
  // Whether protected tokens take the memory of two (HasWidePrefix).
  bool wide_prefix = false;
  // Whether the model was trained with a dedicated sink token, which then
  // stands in front of every text: such a model needs that one sink alone.
  bool has_sink_token = false;
  PolicyBackend backend = {};
};

// What happens to a turn when a policy that may not evict is full.
enum class OnFull { kStop, kError };

struct MadePolicy {
  std::shared_ptr<const CachePolicy> policy;
  OnFull on_full = OnFull::kStop;
  std::string text;  // canonical: every option with its value
  int64_t sink_tokens = 0, window_tokens = 0;  // 0 where there is none
};

// For `GetServerInfo` and --help.
struct PolicyOptionInfo {
  std::string name, type;  // "uint", "bool", "float", or "stop|error"
  std::string default_value, range, summary;
  // The default for a model with a sink token; empty: the same.
  std::string default_with_sink_token = "";
};
struct PolicyInfo {
  std::string name, summary;
  std::vector<PolicyOptionInfo> options;
};

// "name" or "name:option=value,...". INVALID_ARGUMENT names the part that is
// wrong, of which it quotes 64 bytes at most, and what there is instead. Values
// are not yet checked.
absl::StatusOr<PolicyConfig> ParsePolicy(absl::string_view text);

// INVALID_ARGUMENT with the numbers; the payload "millrace/reason" is
// INVALID_CACHE_POLICY, "millrace/field" the option. FAILED_PRECONDITION with
// the reason POLICY_UNSUPPORTED_BY_BACKEND if the policy chooses by attention
// and the backend does not tell it.
absl::StatusOr<MadePolicy> MakePolicy(const PolicyConfig& config,
                                      const PolicyContext& context);

const std::vector<PolicyInfo>& AllPolicies();

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_POLICIES_REGISTRY_H_
