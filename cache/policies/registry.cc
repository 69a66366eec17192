#include "cache/policies/registry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cache/policies/full_policy.h"
#include "cache/policies/policy_definition.h"
#include "cache/policies/sinks_policy.h"
#include "cache/policies/window_policy.h"

namespace millrace::cache {
namespace {

// Every policy there is.
const std::vector<PolicyDefinition>& Definitions() {
  static const auto* definitions = new std::vector<PolicyDefinition>{
      FullPolicyDefinition(),
      WindowPolicyDefinition(),
      SinksPolicyDefinition(),
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
  return InvalidPolicy("name", absl::StrCat("unknown cache policy '", name,
                                            "'; there are ", Names()));
}

absl::Status CheckOptionName(const PolicyInfo& info, const std::string& name) {
  std::vector<std::string> known;
  for (const PolicyOptionInfo& option : info.options) {
    if (option.name == name) return absl::OkStatus();
    known.push_back(option.name);
  }
  return InvalidPolicy(
      name, absl::StrCat("cache policy '", info.name, "' has no option '", name,
                         "'; its options: ", absl::StrJoin(known, ", ")));
}

absl::Status CheckOptionNames(const PolicyInfo& info,
                              const PolicyConfig& config) {
  for (size_t i = 0; i < config.options.size(); ++i) {
    const std::string& name = config.options[i].first;
    const absl::Status known = CheckOptionName(info, name);
    if (!known.ok()) return known;
    const bool repeated =
        std::any_of(config.options.begin(), config.options.begin() + i,
                    [&](const auto& option) { return option.first == name; });
    if (repeated) {
      return InvalidPolicy(
          name, absl::StrCat("option '", name, "' is given more than once"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PolicyConfig> ParsePolicy(absl::string_view text) {
  const std::vector<std::string> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  PolicyConfig config;
  config.name = parts[0];
  const auto definition = Find(config.name);
  if (!definition.ok()) return definition.status();
  if (parts.size() == 1) return config;
  for (absl::string_view option : absl::StrSplit(parts[1], ',')) {
    const std::vector<std::string> sides =
        absl::StrSplit(option, absl::MaxSplits('=', 1));
    if (sides.size() != 2) {
      return InvalidPolicy(sides[0],
                           absl::StrCat("cache policy '", text, "': '", option,
                                        "' is not OPTION=VALUE"));
    }
    config.options.emplace_back(sides[0], sides[1]);
  }
  const absl::Status names = CheckOptionNames((*definition)->info, config);
  if (!names.ok()) return names;
  return config;
}

absl::StatusOr<MadePolicy> MakePolicy(const PolicyConfig& config,
                                      const PolicyContext& context) {
  const auto definition = Find(config.name);
  if (!definition.ok()) return definition.status();
  const absl::Status names = CheckOptionNames((*definition)->info, config);
  if (!names.ok()) return names;
  return (*definition)->make(PolicyOptionReader(&config), context);
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
