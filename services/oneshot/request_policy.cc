#include "services/oneshot/request_policy.h"

#include <algorithm>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"

namespace millrace::oneshot {
namespace {

constexpr char kFull[] = "full";
constexpr char kMaxTokens[] = "max_tokens";

bool Names(const cache::PolicyConfig& config, absl::string_view option) {
  return absl::c_any_of(config.options,
                        [&](const auto& o) { return o.first == option; });
}

absl::Status BelowCachePolicy(const absl::Status& status,
                              absl::string_view policy) {
  const auto option = status.GetPayload(errors::kFieldUrl);
  absl::Status out = status;
  out.SetPayload(
      errors::kFieldUrl,
      absl::Cord(absl::StrCat("cache_policy.", policy, option ? "." : "",
                              option ? std::string(*option) : std::string())));
  return out;
}

}  // namespace

absl::StatusOr<cache::MadePolicy> MakeRequestPolicy(
    std::optional<cache::PolicyConfig> asked,
    std::optional<int64_t> expected_tokens, int64_t pinned_tokens,
    cache::PolicyContext context) {
  cache::PolicyConfig config =
      asked ? *std::move(asked) : cache::PolicyConfig{kFull, {}};
  if (config.name == kFull && !Names(config, kMaxTokens) && expected_tokens) {
    const int64_t most =
        std::min(context.trained_context, context.max_resident_tokens);
    config.options.emplace_back(kMaxTokens, absl::StrCat(std::clamp<int64_t>(
                                                *expected_tokens, 1, most)));
  }
  context.pinned_tokens = pinned_tokens;
  auto made = cache::MakePolicy(config, context);
  if (!made.ok()) return BelowCachePolicy(made.status(), config.name);
  return made;
}

}  // namespace millrace::oneshot
