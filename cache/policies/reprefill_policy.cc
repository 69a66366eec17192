#include "cache/policies/reprefill_policy.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

class ReprefillPolicy final : public CachePolicy {
 public:
  explicit ReprefillPolicy(const ReprefillOptions& options)
      : options_(options), kept_(options.pinned_tokens) {}

  absl::string_view Name() const override { return "reprefill"; }

  std::string ToString() const override {
    return absl::StrCat("reprefill:window_tokens=", options_.window_tokens,
                        ",rebuild_every=", options_.rebuild_every,
                        PinnedText(kept_));
  }

  PolicyTraits traits() const override {
    return {.protected_prefix = kept_, .recomputes = true};
  }

  // Rows come one stage at a time, and nothing is held for a cut.
  int64_t MaxResidentTokens(int64_t) const override {
    return kept_ + options_.window_tokens + 1;
  }

  int64_t MaxDistance() const override {
    return kept_ + options_.window_tokens;
  }

  std::vector<RunRule> Rules(int64_t t) const override {
    return KeptAndNewest(kept_, Skipped(t));
  }

  int64_t NextCut(int64_t t) const override {
    return kept_ + options_.window_tokens + Skipped(t) + 1;
  }

  TextRange Recomputes(int64_t t) const override {
    const int64_t skipped = Skipped(t), begin = kept_ + skipped;
    if (skipped == 0) return {begin, begin};
    return {begin, NextCut(t) - options_.rebuild_every};
  }

  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t) const override {
    return EvictionPlan{
        .evict =
            Within(view.resident, {kept_, kept_ + Skipped(view.first_row)})};
  }

 private:
  // b - F: the tokens behind the kept ones that row t does not see.
  int64_t Skipped(int64_t t) const {
    const int64_t beyond = t - kept_ - options_.window_tokens;
    if (beyond <= 0) return 0;
    const int64_t every = options_.rebuild_every;
    return (beyond + every - 1) / every * every;
  }

  const ReprefillOptions options_;
  const int64_t kept_;  // F
};

absl::StatusOr<MadePolicy> Make(const PolicyOptionReader& options,
                                const PolicyContext& context) {
  const auto window =
      options.Tokens("window_tokens", ReprefillOptions().window_tokens);
  if (!window.ok()) return window.status();
  const auto every =
      options.Tokens("rebuild_every", std::max<int64_t>(1, *window / 2));
  if (!every.ok()) return every.status();
  // A model with a sink token never saw a text without it in front.
  const auto pins = ReadPins(options, context, context.has_sink_token ? 1 : 0);
  if (!pins.ok()) return pins.status();
  auto policy = NewReprefillPolicy({.window_tokens = *window,
                                    .rebuild_every = *every,
                                    .pinned_tokens = pins->pinned},
                                   context.trained_context);
  if (!policy.ok()) return policy.status();
  const absl::Status memory = CheckMemory(**policy, context, "window_tokens");
  if (!memory.ok()) return memory;
  return MadePolicy{
      .policy = *policy,
      .text = absl::StrCat("reprefill:window_tokens=", *window,
                           ",rebuild_every=", *every, PinsText(*pins)),
      .sink_tokens = pins->pinned,
      .window_tokens = *window};
}

}  // namespace

PolicyDefinition ReprefillPolicyDefinition() {
  return {
      .info = {.name = "reprefill",
               .summary = "computes a window of recent tokens anew as it moves",
               .options = WithPins(
                   {{.name = "window_tokens",
                     .type = "uint",
                     .default_value = "1024",
                     .range = "1 to trained context - 1 - what is pinned",
                     .summary = "tokens seen at most before the newest"},
                    {.name = "rebuild_every",
                     .type = "uint",
                     .default_value = "half of window_tokens",
                     .range = "1 to window_tokens",
                     .summary = "tokens by which the window moves at once"}},
                   /*pins_with_sink_token=*/"1")},
      .make = Make};
}

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewReprefillPolicy(
    const ReprefillOptions& options, int64_t trained_context) {
  const int64_t window = options.window_tokens;
  if (window < 1) {
    return InvalidPolicy("window_tokens", absl::StrCat("window_tokens=", window,
                                                       ": must be 1 or more"));
  }
  if (options.pinned_tokens < 0) {
    return InvalidPolicy("window_tokens",
                         absl::StrCat("pin_tokens=", options.pinned_tokens,
                                      ": must be 0 or more"));
  }
  // Compared without a sum: either count may be near the end of its range.
  if (options.pinned_tokens >= trained_context ||
      window > trained_context - options.pinned_tokens - 1) {
    return InvalidPolicy(
        "window_tokens",
        absl::StrCat("window_tokens=", window,
                     " + pinned tokens=", options.pinned_tokens,
                     " + 1 exceeds the model's trained context of ",
                     trained_context));
  }
  if (options.rebuild_every < 1 || options.rebuild_every > window) {
    return InvalidPolicy("rebuild_every",
                         absl::StrCat("rebuild_every=", options.rebuild_every,
                                      ": must be 1 to window_tokens=", window));
  }
  return std::make_shared<const ReprefillPolicy>(options);
}

}  // namespace millrace::cache
