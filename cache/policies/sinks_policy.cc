#include "cache/policies/sinks_policy.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

class SinksPolicy final : public CachePolicy {
 public:
  explicit SinksPolicy(const SinksOptions& options)
      : options_(options),
        kept_(std::max(options.sink_tokens, options.pinned_tokens)) {}

  absl::string_view Name() const override { return "sinks"; }

  std::string ToString() const override {
    return absl::StrCat("sinks:sink_tokens=", options_.sink_tokens,
                        ",window_tokens=", options_.window_tokens,
                        PinnedText(options_.pinned_tokens));
  }

  PolicyTraits traits() const override { return {.protected_prefix = kept_}; }

  int64_t MaxResidentTokens(int64_t num_new) const override {
    return kept_ + options_.window_tokens + num_new;
  }

  int64_t MaxDistance() const override {
    return kept_ + options_.window_tokens;
  }

  std::vector<RunRule> Rules(int64_t) const override {
    RunRule window{.begin = kept_, .window = options_.window_tokens};
    if (kept_ == 0) return {window};
    const RunRule sinks{.end = kept_, .query_cap = MaxDistance()};
    return {sinks, window};
  }

  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t) const override {
    const int64_t seen = view.first_row - options_.window_tokens;
    return EvictionPlan{.evict = Within(view.resident, {kept_, seen})};
  }

 private:
  const SinksOptions options_;
  const int64_t kept_;  // F
};

// The whole cache of a policy whose window nobody chose.
constexpr int64_t kDefaultCacheTokens = 2048;

// The largest window that makes a cache of the default size.
int64_t DefaultWindow(int64_t kept, const PolicyContext& context) {
  const int64_t cache =
      std::min(context.trained_context / 2, kDefaultCacheTokens);
  return std::min(cache - kept - 1, context.max_resident_tokens -
                                        context.extra_tokens -
                                        (context.wide_prefix ? 2 : 1) * kept);
}

// The options, as asked for, with the defaults filled in.
struct Asked {
  int64_t sink_tokens = 0, window_tokens = 0;
  Pins pins;
};

absl::StatusOr<Asked> Read(const PolicyOptionReader& options,
                           const PolicyContext& context) {
  const auto sinks = options.Tokens("sink_tokens", DefaultSinkTokens(context));
  if (!sinks.ok()) return sinks.status();
  const auto pins = ReadPins(options, context);
  if (!pins.ok()) return pins.status();
  const int64_t kept = std::max(*sinks, pins->pinned);
  const auto window =
      options.Tokens("window_tokens", DefaultWindow(kept, context));
  if (!window.ok()) return window.status();
  return Asked{.sink_tokens = *sinks, .window_tokens = *window, .pins = *pins};
}

std::string Text(const Asked& asked) {
  return absl::StrCat("sinks:sink_tokens=", asked.sink_tokens,
                      ",window_tokens=", asked.window_tokens,
                      PinsText(asked.pins));
}

absl::StatusOr<MadePolicy> Make(const PolicyOptionReader& options,
                                const PolicyContext& context) {
  const auto asked = Read(options, context);
  if (!asked.ok()) return asked.status();
  if (asked->window_tokens < 1 && !options.Has("window_tokens")) {
    return InvalidPolicy(
        "window_tokens",
        absl::StrCat("the default cache leaves no window beside the ",
                     std::max(asked->sink_tokens, asked->pins.pinned),
                     " tokens kept from the start, in a trained context of ",
                     context.trained_context, " and a session of at most ",
                     context.max_resident_tokens,
                     " tokens; give window_tokens, or keep fewer"));
  }
  auto policy = NewSinksPolicy({.sink_tokens = asked->sink_tokens,
                                .window_tokens = asked->window_tokens,
                                .pinned_tokens = asked->pins.pinned},
                               context.trained_context);
  if (!policy.ok()) {
    return InvalidPolicy("window_tokens", policy.status().message());
  }
  const absl::Status memory = CheckMemory(**policy, context, "window_tokens");
  if (!memory.ok()) return memory;
  return MadePolicy{.policy = *policy,
                    .text = Text(*asked),
                    .sink_tokens = (*policy)->traits().protected_prefix,
                    .window_tokens = asked->window_tokens};
}

}  // namespace

PolicyDefinition SinksPolicyDefinition() {
  return {
      .info = {.name = "sinks",
               .summary = "keeps the first tokens and a window of recent ones",
               .options = WithPins(
                   {SinkTokensInfo("sink_tokens", "0 to trained context - 2"),
                    {.name = "window_tokens",
                     .type = "uint",
                     .default_value = "a cache of 2048, or half the context",
                     .range = "1 to trained context - 1 - what is kept",
                     .summary = "tokens seen before the newest"}})},
      .make = Make};
}

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewSinksPolicy(
    const SinksOptions& options, int64_t trained_context) {
  if (options.window_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "window_tokens=", options.window_tokens, ": must be 1 or more"));
  }
  if (options.sink_tokens < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sink_tokens=", options.sink_tokens, ": must be 0 or more"));
  }
  if (options.pinned_tokens < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pin_tokens=", options.pinned_tokens, ": must be 0 or more"));
  }
  const bool pinned = options.pinned_tokens > options.sink_tokens;
  const int64_t kept = pinned ? options.pinned_tokens : options.sink_tokens;
  // Compared without a sum: either count may be near the end of its range.
  if (kept >= trained_context ||
      options.window_tokens > trained_context - kept - 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "window_tokens=", options.window_tokens,
        pinned ? " + pinned tokens=" : " + sink_tokens=", kept,
        " + 1 exceeds the model's trained context of ", trained_context));
  }
  return std::make_shared<const SinksPolicy>(options);
}

}  // namespace millrace::cache
