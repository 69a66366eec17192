#include "cache/policies/snapkv_policy.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

constexpr ScoredOptionNames kNames{.stride = "segment_tokens",
                                   .recent = "vote_window"};

std::string OwnText(const ScoredOptions& options, int64_t pool_kernel,
                    OnFull on_full) {
  return absl::StrCat(
      "snapkv:", ScoredText(options, kNames), ",pool_kernel=", pool_kernel,
      PositionsText(options),
      ",on_full=", on_full == OnFull::kError ? "error" : "stop");
}

class SnapkvPolicy final : public ScoredPolicy {
 public:
  SnapkvPolicy(const SnapkvOptions& options, int64_t trained_context)
      : ScoredPolicy(options.scored, trained_context),
        pool_kernel_(options.pool_kernel) {}

  absl::string_view Name() const override { return "snapkv"; }

  std::string ToString() const override {
    return OwnText(options(), pool_kernel_, OnFull::kStop) +
           PinnedText(options().pinned_tokens);
  }

  PolicyTraits traits() const override {
    PolicyTraits traits = ScoredPolicy::traits();
    traits.scores = ScoreNeed::kAccumulated;
    traits.unbounded_stream = false;
    return traits;
  }

  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t num_new) const override {
    const bool decodes = view.input_end <= view.length;
    const int64_t resident = view.resident.empty() ? 0 : view.resident[0].end;
    if (decodes && resident + num_new > MostWhileWriting()) {
      return absl::FailedPreconditionError(
          absl::StrCat("write ", num_new, " tokens behind ", resident,
                       " that are held: snapkv evicts none of them, and holds ",
                       MostWhileWriting(), " while it writes"));
    }
    return ScoredPolicy::Plan(view, num_new);
  }

 private:
  int64_t MostWhileWriting() const override {
    return options().budget_tokens + options().stride - options().recent_tokens;
  }

  ScoreScope scope() const override { return ScoreScope::kHead; }

  int64_t NextCut(const ScoredState& state) const override {
    if (state.input_end <= state.length) return kUnlimited;
    const int64_t room =
        options().budget_tokens + options().stride - state.resident;
    return std::min(state.input_end, state.length + room);
  }

  bool CutsAt(const ScoredState& state) const override {
    if (state.input_end <= state.length) {
      return state.input_end == state.length;
    }
    return state.resident >= options().budget_tokens + options().stride;
  }

  // The W rows before a cut vote.
  bool Weights(const ScoredState& state,
               absl::Span<float> weights) const override {
    const int64_t cut = NextCut(state);
    const auto rows = static_cast<int64_t>(weights.size());
    if (cut == kUnlimited) return false;
    const int64_t first = cut - options().recent_tokens - state.length;
    for (int64_t i = 0; i < rows; ++i) weights[i] = i >= first ? 1 : 0;
    return rows > first;
  }

  float Decay() const override { return 1; }
  bool RestartsAtCut() const override { return true; }
  int64_t HeldBackTokens() const override { return options().recent_tokens; }

  std::vector<int64_t> Survivors(absl::Span<const float> sums) const override {
    return KeepLargest(Pooled(sums), options().kept(), options().recent_tokens,
                       options().budget_tokens);
  }

  std::vector<float> Pooled(absl::Span<const float> votes) const {
    const auto size = static_cast<int64_t>(votes.size());
    const int64_t reach = pool_kernel_ / 2;
    std::vector<float> pooled(votes.size());
    for (int64_t i = 0; i < size; ++i) {
      const int64_t end = std::min(size, i + reach + 1);
      for (int64_t j = std::max<int64_t>(0, i - reach); j < end; ++j) {
        pooled[i] += votes[j];
      }
      pooled[i] /= static_cast<float>(pool_kernel_);
    }
    return pooled;
  }

  const int64_t pool_kernel_;
};

absl::StatusOr<MadePolicy> Make(const PolicyOptionReader& reader,
                                const PolicyContext& context) {
  SnapkvOptions options;
  const auto read = ReadScoredOptions(reader, context, options.scored, kNames);
  if (!read.ok()) return read.status();
  options.scored = read->options;
  const auto kernel = reader.Tokens("pool_kernel", options.pool_kernel);
  if (!kernel.ok()) return kernel.status();
  options.pool_kernel = *kernel;
  const auto error = reader.Choice("on_full", "stop", "error");
  if (!error.ok()) return error.status();
  const OnFull on_full = *error ? OnFull::kError : OnFull::kStop;
  auto made = MadeScored(NewSnapkvPolicy(options, context.trained_context),
                         *read, context,
                         OwnText(options.scored, options.pool_kernel, on_full));
  if (made.ok()) made->on_full = on_full;
  return made;
}

}  // namespace

PolicyDefinition SnapkvPolicyDefinition() {
  return {
      .info = {.name = "snapkv",
               .summary = "compresses input to what its end looks at; keeps "
                          "what is written, up to a limit",
               .options = ScoredOptionInfos(
                   SnapkvOptions().scored, kNames,
                   {{.name = "pool_kernel",
                     .type = "uint",
                     .default_value = "5",
                     .range = "odd",
                     .summary = "neighbours that votes are averaged over"},
                    {.name = "on_full",
                     .type = "stop|error",
                     .default_value = "stop",
                     .range = "stop, error",
                     .summary = "what ends a turn that fills the cache"}})},
      .make = Make};
}

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewSnapkvPolicy(
    const SnapkvOptions& options, int64_t trained_context) {
  const absl::Status checked =
      CheckScoredOptions(options.scored, trained_context, kNames);
  if (!checked.ok()) return checked;
  if (options.scored.stride <= options.scored.recent_tokens) {
    return InvalidPolicy("segment_tokens",
                         absl::StrCat("segment_tokens=", options.scored.stride,
                                      ": must be more than vote_window=",
                                      options.scored.recent_tokens));
  }
  if (options.pool_kernel % 2 != 1) {
    return InvalidPolicy(
        "pool_kernel",
        absl::StrCat("pool_kernel=", options.pool_kernel, ": must be odd"));
  }
  return std::make_shared<const SnapkvPolicy>(options, trained_context);
}

}  // namespace millrace::cache
