#include "cache/policies/registry.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cache/policies/full_policy.h"
#include "cache/policies/h2o_policy.h"
#include "cache/policies/policy_definition.h"
#include "cache/policies/reprefill_policy.h"
#include "cache/policies/shift_policy.h"
#include "cache/policies/sinks_policy.h"
#include "cache/policies/snapkv_policy.h"
#include "cache/policies/tova_policy.h"
#include "cache/policies/window_policy.h"

namespace millrace::cache {
namespace {

// Every policy there is.
const std::vector<PolicyDefinition>& Definitions() {
  static const auto* definitions = new std::vector<PolicyDefinition>{
      FullPolicyDefinition(),  WindowPolicyDefinition(),
      SinksPolicyDefinition(), ReprefillPolicyDefinition(),
      ShiftPolicyDefinition(), TovaPolicyDefinition(),
      H2oPolicyDefinition(),   SnapkvPolicyDefinition(),
  };
  return *definitions;
}

std::string Names() {
  return absl::StrJoin(
      AllPolicies(), ", ",
      [](std::string* out, const auto& p) { out->append(p.name); });
}

absl::StatusOr<const PolicyDefinition*> Find(absl::string_view name) {
  for (const PolicyDefinition& definition : Definitions()) {
    if (definition.info.name == name) return &definition;
  }
  return InvalidPolicy("name",
                       absl::StrCat("unknown cache policy '", Excerpt(name),
                                    "'; there are ", Names()));
}

absl::Status CheckKnown(const PolicyInfo& info, const std::string& name) {
  std::vector<std::string> known;
  for (const PolicyOptionInfo& option : info.options) {
    if (option.name == name) return absl::OkStatus();
    known.push_back(option.name);
  }
  return InvalidPolicy(
      name, absl::StrCat("cache policy '", info.name, "' has no option '",
                         Excerpt(name),
                         "'; its options: ", absl::StrJoin(known, ", ")));
}

// Whether option `i` exists, and is none of those before it.
absl::Status CheckOption(const PolicyInfo& info, const PolicyConfig& config,
                         size_t i) {
  const std::string& name = config.options[i].first;
  const absl::Status known = CheckKnown(info, name);
  if (!known.ok()) return known;
  for (size_t earlier = 0; earlier < i; ++earlier) {
    if (config.options[earlier].first != name) continue;
    return InvalidPolicy(
        name, absl::StrCat("option '", name, "' is given more than once"));
  }
  return absl::OkStatus();
}

absl::Status AddOption(const PolicyInfo& info, absl::string_view text,
                       PolicyConfig& config) {
  const size_t equals = text.find('=');
  if (equals == absl::string_view::npos) {
    return InvalidPolicy(
        text.empty() ? "options" : text,
        absl::StrCat("cache policy '", info.name, "': '", Excerpt(text),
                     "' is not OPTION=VALUE; ':' is followed by one or more,"
                     " with ',' between them"));
  }
  config.options.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  return CheckOption(info, config, config.options.size() - 1);
}

// Whether the backend gives what the policy chooses by.
absl::Status CheckScores(const CachePolicy& policy,
                         const PolicyBackend& backend) {
  const ScoreNeed need = policy.traits().scores;
  if (need == ScoreNeed::kNone || backend.attention_scores) {
    return absl::OkStatus();
  }
  const bool last = need == ScoreNeed::kLastRow;
  absl::Status status = absl::FailedPreconditionError(absl::StrCat(
      "cache policy '", policy.Name(), "' chooses by ",
      last ? "the attention of the last row" : "accumulated attention",
      ", which backend '", backend.name,
      "' does not give; choose a policy that needs none, such as 'sinks', or a "
      "server with another --backend"));
  status.SetPayload("millrace/reason",
                    absl::Cord("POLICY_UNSUPPORTED_BY_BACKEND"));
  return status;
}

}  // namespace

absl::StatusOr<PolicyConfig> ParsePolicy(absl::string_view text) {
  const size_t colon = text.find(':');
  const auto definition = Find(text.substr(0, colon));
  if (!definition.ok()) return definition.status();
  const PolicyInfo& info = (*definition)->info;
  PolicyConfig config{.name = info.name, .options = {}};
  if (colon == absl::string_view::npos) return config;
  for (const absl::string_view option :
       absl::StrSplit(text.substr(colon + 1), ',')) {
    const absl::Status added = AddOption(info, option, config);
    if (!added.ok()) return added;
  }
  return config;
}

absl::StatusOr<MadePolicy> MakePolicy(const PolicyConfig& config,
                                      const PolicyContext& context) {
  const auto definition = Find(config.name);
  if (!definition.ok()) return definition.status();
  for (size_t i = 0; i < config.options.size(); ++i) {
    const absl::Status option = CheckOption((*definition)->info, config, i);
    if (!option.ok()) return option;
  }
  auto made = (*definition)->make(PolicyOptionReader(&config), context);
  if (!made.ok()) return made;
  const absl::Status scores = CheckScores(*made->policy, context.backend);
  if (!scores.ok()) return scores;
  return made;
}

const std::vector<PolicyInfo>& AllPolicies() {
  static const auto* infos = [] {
    auto* all = new std::vector<PolicyInfo>;
    for (const auto& definition : Definitions())
      all->push_back(definition.info);
    return all;
  }();
  return *infos;
}

}  // namespace millrace::cache
