#include "cache/policies/full_policy.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

class FullPolicy final : public CachePolicy {
 public:
  explicit FullPolicy(const FullOptions& options) : options_(options) {}

  absl::string_view Name() const override { return "full"; }

  std::string ToString() const override {
    return absl::StrCat(
        "full:max_tokens=", options_.max_tokens,
        ",allow_beyond_trained_context=",
        options_.allow_beyond_trained_context ? "true" : "false");
  }

  PolicyTraits traits() const override { return {.unbounded_stream = false}; }

  int64_t MaxResidentTokens(int64_t) const override {
    return options_.max_tokens;
  }

  int64_t MaxTextTokens() const override { return options_.max_tokens; }

  int64_t MaxDistance() const override { return options_.max_tokens - 1; }

  std::vector<RunRule> Rules(int64_t) const override { return {RunRule{}}; }

  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t num_new) const override {
    const int64_t room = options_.max_tokens - view.length;
    if (num_new <= room) return EvictionPlan{};
    return absl::FailedPreconditionError(
        absl::StrCat("append ", num_new, " tokens: policy 'full' has room for ",
                     room, " of ", options_.max_tokens,
                     "; open it with a bounded policy, such as 'sinks'"));
  }

 private:
  const FullOptions options_;
};

absl::StatusOr<MadePolicy> Make(const PolicyOptionReader& options,
                                const PolicyContext& context) {
  const auto max_tokens = options.Tokens(
      "max_tokens",
      std::min(context.trained_context, context.max_resident_tokens));
  if (!max_tokens.ok()) return max_tokens.status();
  const auto beyond = options.Bool("allow_beyond_trained_context", false);
  if (!beyond.ok()) return beyond.status();
  const auto error = options.Choice("on_full", "stop", "error");
  if (!error.ok()) return error.status();
  auto policy = NewFullPolicy(
      {.max_tokens = *max_tokens, .allow_beyond_trained_context = *beyond},
      context.trained_context);
  if (!policy.ok()) {
    return InvalidPolicy("max_tokens", policy.status().message());
  }
  const absl::Status memory = CheckMemory(**policy, context, "max_tokens");
  if (!memory.ok()) return memory;
  return MadePolicy{.policy = *policy,
                    .on_full = *error ? OnFull::kError : OnFull::kStop,
                    .text = absl::StrCat((*policy)->ToString(), ",on_full=",
                                         *error ? "error" : "stop")};
}

}  // namespace

PolicyDefinition FullPolicyDefinition() {
  return {
      .info = {.name = "full",
               .summary = "keeps everything, up to a limit",
               .options = {{.name = "max_tokens",
                            .type = "uint",
                            .default_value = "trained context, or what fits",
                            .range = "1 to trained context",
                            .summary = "the most tokens of the text"},
                           {.name = "on_full",
                            .type = "stop|error",
                            .default_value = "stop",
                            .range = "stop, error",
                            .summary = "how a turn ends that fills the cache"},
                           {.name = "allow_beyond_trained_context",
                            .type = "bool",
                            .default_value = "false",
                            .range = "true, false",
                            .summary =
                                "lets max_tokens exceed the trained context"}}},
      .make = Make};
}

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewFullPolicy(
    const FullOptions& options, int64_t trained_context) {
  if (options.max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens=", options.max_tokens, ": must be 1 or more"));
  }
  if (options.max_tokens > trained_context &&
      !options.allow_beyond_trained_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_tokens=", options.max_tokens,
        " exceeds the model's trained context of ", trained_context));
  }
  return std::make_shared<const FullPolicy>(options);
}

}  // namespace millrace::cache
