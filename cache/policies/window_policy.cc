#include "cache/policies/window_policy.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

class WindowPolicy final : public CachePolicy {
 public:
  explicit WindowPolicy(const WindowOptions& options) : options_(options) {}

  absl::string_view Name() const override { return "window"; }

  std::string ToString() const override {
    return absl::StrCat("window:window_tokens=", options_.window_tokens);
  }

  PolicyTraits traits() const override { return {}; }

  int64_t MaxResidentTokens(int64_t num_new) const override {
    return options_.window_tokens + num_new;
  }

  int64_t MaxDistance() const override { return options_.window_tokens; }

  std::vector<RunRule> Rules(int64_t) const override {
    return {RunRule{.window = options_.window_tokens}};
  }

  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t) const override {
    const int64_t seen = view.first_row - options_.window_tokens;
    return EvictionPlan{.evict = Within(view.resident, {0, seen})};
  }

 private:
  const WindowOptions options_;
};

absl::StatusOr<MadePolicy> Make(const PolicyOptionReader& options,
                                const PolicyContext& context) {
  const auto window =
      options.Tokens("window_tokens", WindowOptions().window_tokens);
  if (!window.ok()) return window.status();
  auto policy = NewWindowPolicy({*window}, context.trained_context);
  if (!policy.ok()) {
    return InvalidPolicy("window_tokens", policy.status().message());
  }
  const absl::Status memory = CheckMemory(**policy, context, "window_tokens");
  if (!memory.ok()) return memory;
  return MadePolicy{.policy = *policy,
                    .text = (*policy)->ToString(),
                    .window_tokens = *window};
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewWindowPolicy(
    const WindowOptions& options, int64_t trained_context) {
  if (options.window_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "window_tokens=", options.window_tokens, ": must be 1 or more"));
  }
  if (options.window_tokens >= trained_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "window_tokens=", options.window_tokens,
        " + 1 exceeds the model's trained context of ", trained_context));
  }
  return std::make_shared<const WindowPolicy>(options);
}

PolicyDefinition WindowPolicyDefinition() {
  return {.info = {.name = "window",
                   .summary = "keeps a window of recent tokens",
                   .options = {{.name = "window_tokens",
                                .type = "uint",
                                .default_value = "1024",
                                .range = "1 to trained context - 1",
                                .summary = "tokens seen before the newest"}}},
          .make = Make};
}

}  // namespace millrace::cache
