#include "cache/policies/shift_policy.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

int64_t Kept(const ShiftOptions& options) {
  return std::max(options.n_keep, options.pinned_tokens);
}

class ShiftPolicy final : public CachePolicy {
 public:
  explicit ShiftPolicy(const ShiftOptions& options)
      : options_(options), kept_(Kept(options)) {}

  absl::string_view Name() const override { return "shift"; }

  std::string ToString() const override {
    return absl::StrCat("shift:context_tokens=", options_.context_tokens,
                        ",n_keep=", options_.n_keep,
                        ",n_discard=", options_.n_discard,
                        PinnedText(options_.pinned_tokens));
  }

  PolicyTraits traits() const override { return {.protected_prefix = kept_}; }

  int64_t MaxResidentTokens(int64_t num_new) const override {
    return options_.context_tokens - 1 + num_new;
  }

  int64_t MaxDistance() const override { return options_.context_tokens - 1; }

  std::vector<RunRule> Rules(int64_t t) const override {
    return KeptAndNewest(kept_, Dropped(t));
  }

  int64_t NextCut(int64_t t) const override {
    return options_.context_tokens + Dropped(t);
  }

  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t) const override {
    return EvictionPlan{
        .evict =
            Within(view.resident, {kept_, kept_ + Dropped(view.first_row)})};
  }

 private:
  // k D: the tokens behind the kept ones that row t does not see.
  int64_t Dropped(int64_t t) const {
    if (t < options_.context_tokens) return 0;
    const int64_t shifts =
        1 + (t - options_.context_tokens) / options_.n_discard;
    return shifts * options_.n_discard;
  }

  const ShiftOptions options_;
  const int64_t kept_;  // F
};

absl::StatusOr<MadePolicy> Make(const PolicyOptionReader& options,
                                const PolicyContext& context) {
  const ShiftOptions defaults;
  const auto size = options.Tokens("context_tokens", defaults.context_tokens);
  if (!size.ok()) return size.status();
  const auto keep = options.Tokens("n_keep", DefaultSinkTokens(context));
  if (!keep.ok()) return keep.status();
  const auto pins = ReadPins(options, context);
  if (!pins.ok()) return pins.status();
  const int64_t kept = std::max(*keep, pins->pinned);
  const auto discard =
      options.Tokens("n_discard", std::max<int64_t>(1, (*size - kept) / 2));
  if (!discard.ok()) return discard.status();
  auto policy = NewShiftPolicy({.context_tokens = *size,
                                .n_keep = *keep,
                                .n_discard = *discard,
                                .pinned_tokens = pins->pinned},
                               context.trained_context);
  if (!policy.ok()) return policy.status();
  const absl::Status memory = CheckMemory(**policy, context, "context_tokens");
  if (!memory.ok()) return memory;
  return MadePolicy{
      .policy = *policy,
      .text = absl::StrCat("shift:context_tokens=", *size, ",n_keep=", *keep,
                           ",n_discard=", *discard, PinsText(*pins)),
      .sink_tokens = kept,
      .window_tokens = *size - kept - 1};
}

}  // namespace

PolicyDefinition ShiftPolicyDefinition() {
  return {
      .info = {.name = "shift",
               .summary = "drops many tokens at once behind the first ones, as "
                          "llama.cpp does",
               .options = WithPins(
                   {{.name = "context_tokens",
                     .type = "uint",
                     .default_value = "1024",
                     .range = "2 to trained context",
                     .summary = "tokens seen at most, the newest included"},
                    SinkTokensInfo("n_keep", "0 to context_tokens - 2"),
                    {.name = "n_discard",
                     .type = "uint",
                     .default_value = "half of what is not kept",
                     .range = "1 to context_tokens - 1 - what is kept",
                     .summary = "tokens dropped at once"}})},
      .make = Make};
}

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewShiftPolicy(
    const ShiftOptions& options, int64_t trained_context) {
  const int64_t size = options.context_tokens, kept = Kept(options);
  if (size < 2 || size > trained_context) {
    return InvalidPolicy(
        "context_tokens",
        absl::StrCat("context_tokens=", size,
                     ": must be 2 to the model's trained context of ",
                     trained_context));
  }
  if (options.n_keep < 0 || options.pinned_tokens < 0 || kept > size - 2) {
    const bool pinned = options.pinned_tokens > options.n_keep;
    return InvalidPolicy(
        "context_tokens",
        absl::StrCat(pinned ? "pinned tokens=" : "n_keep=", kept,
                     ": must be 0 to context_tokens=", size, " - 2"));
  }
  if (options.n_discard < 1 || options.n_discard > size - kept - 1) {
    return InvalidPolicy(
        "n_discard", absl::StrCat("n_discard=", options.n_discard,
                                  ": must be 1 to context_tokens=", size, " - ",
                                  kept, " that are kept - 1"));
  }
  return std::make_shared<const ShiftPolicy>(options);
}

}  // namespace millrace::cache
