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
                        ",pin_tokens=", options_.pinned_tokens);
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
    const int64_t horizon = view.first_row - options_.window_tokens;
    EvictionPlan plan;
    for (const TextRange& range : view.resident) {
      const TextRange gone{std::max(range.begin, kept_),
                           std::min(range.end, horizon)};
      if (!gone.empty()) plan.evict.push_back(gone);
    }
    return plan;
  }

 private:
  const SinksOptions options_;
  const int64_t kept_;  // F
};

}  // namespace

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
