#include "cache/policies/scored_policy.h"

#include <numeric>

#include "absl/strings/str_cat.h"

namespace millrace::cache {

std::vector<int64_t> KeepLargest(absl::Span<const float> numbers, int64_t kept,
                                 int64_t recent, int64_t budget) {
  const int64_t newest = static_cast<int64_t>(numbers.size()) - recent;
  std::vector<int64_t> candidates(static_cast<size_t>(newest - kept));
  std::iota(candidates.begin(), candidates.end(), kept);
  const auto chosen = candidates.begin() + (budget - kept - recent);
  std::nth_element(candidates.begin(), chosen, candidates.end(),
                   [&](int64_t a, int64_t b) {
                     const float x = numbers[a], y = numbers[b];
                     return x != y ? x > y : a > b;
                   });
  std::sort(candidates.begin(), chosen);
  std::vector<int64_t> survivors(static_cast<size_t>(budget));
  std::iota(survivors.begin(), survivors.begin() + kept, 0);
  std::copy(candidates.begin(), chosen, survivors.begin() + kept);
  std::iota(survivors.end() - recent, survivors.end(), newest);
  return survivors;
}

PolicyTraits ScoredPolicy::traits() const {
  return {.chunk_invariant = false,
          .unbounded_stream = !options_.text_positions,
          .protected_prefix = options_.kept()};
}

int64_t ScoredPolicy::MaxResidentTokens(int64_t) const {
  return options_.budget_tokens + options_.stride;
}

int64_t ScoredPolicy::MaxDistance() const {
  if (options_.text_positions) return trained_context_ - 1;
  return options_.budget_tokens + options_.stride - 1;
}

int64_t ScoredPolicy::MaxTextTokens() const {
  return options_.text_positions ? trained_context_ : kUnlimited;
}

std::vector<RunRule> ScoredPolicy::Rules(int64_t) const {
  return KeptAndNewest(options_.kept(), 0);
}

absl::StatusOr<EvictionPlan> ScoredPolicy::Plan(const SequenceView& view,
                                                int64_t num_new) const {
  if (view.length + num_new > MaxTextTokens()) {
    return absl::FailedPreconditionError(
        absl::StrCat("append ", num_new, " tokens to ", view.length,
                     ": with positions=text the text ends at the model's "
                     "trained context of ",
                     trained_context_, " tokens"));
  }
  return EvictionPlan{};
}

int64_t ScoredPolicy::NextCut(const ScoredState& state) const {
  return (state.length / options_.stride + 1) * options_.stride;
}

bool ScoredPolicy::CutsAt(const ScoredState& state) const {
  return state.length % options_.stride == 0;
}

std::vector<int64_t> ScoredPolicy::Survivors(
    absl::Span<const float> sums) const {
  return KeepLargest(sums, options_.kept(), options_.recent_tokens,
                     options_.budget_tokens);
}

absl::StatusOr<ReadScored> ReadScoredOptions(const PolicyOptionReader& reader,
                                             const PolicyContext& context,
                                             const ScoredOptions& defaults,
                                             const ScoredOptionNames& names) {
  ReadScored read{.options = defaults, .pins = {}};
  read.options.sink_tokens = DefaultSinkTokens(context);
  const std::pair<absl::string_view, int64_t*> counts[] = {
      {"budget_tokens", &read.options.budget_tokens},
      {names.stride, &read.options.stride},
      {"sink_tokens", &read.options.sink_tokens},
      {names.recent, &read.options.recent_tokens}};
  for (const auto& [name, value] : counts) {
    const auto tokens = reader.Tokens(name, *value);
    if (!tokens.ok()) return tokens.status();
    *value = *tokens;
  }
  const auto text = reader.Choice("positions", "cache", "text");
  if (!text.ok()) return text.status();
  read.options.text_positions = *text;
  const auto pins = ReadPins(reader, context);
  if (!pins.ok()) return pins.status();
  read.pins = *pins;
  read.options.pinned_tokens = pins->pinned;
  return read;
}

absl::Status CheckScoredOptions(const ScoredOptions& options,
                                int64_t trained_context,
                                const ScoredOptionNames& names) {
  const auto refuse = [](absl::string_view option, int64_t value,
                         absl::string_view range) {
    return InvalidPolicy(option,
                         absl::StrCat(option, "=", value, ": must be ", range));
  };
  if (options.stride < 1 || options.stride >= trained_context) {
    return refuse(names.stride, options.stride,
                  absl::StrCat("1 to ", trained_context - 1,
                               ", less than the model's trained context"));
  }
  const int64_t most = trained_context - options.stride;
  if (options.budget_tokens < 1 || options.budget_tokens > most) {
    return refuse(
        "budget_tokens", options.budget_tokens,
        absl::StrCat("1 to ", most, ", the model's trained context less ",
                     names.stride, "=", options.stride));
  }
  if (options.recent_tokens < 1) {
    return refuse(names.recent, options.recent_tokens, "1 or more");
  }
  const int64_t kept = options.kept();
  if (kept + options.recent_tokens > options.budget_tokens) {
    const bool pinned = options.pinned_tokens > options.sink_tokens;
    return refuse(
        "budget_tokens", options.budget_tokens,
        absl::StrCat("at least ", pinned ? "pinned tokens=" : "sink_tokens=",
                     kept, " + ", names.recent, "=", options.recent_tokens));
  }
  return absl::OkStatus();
}

std::string ScoredText(const ScoredOptions& options,
                       const ScoredOptionNames& names) {
  return absl::StrCat("budget_tokens=", options.budget_tokens, ",",
                      names.stride, "=", options.stride,
                      ",sink_tokens=", options.sink_tokens, ",", names.recent,
                      "=", options.recent_tokens);
}

std::string PositionsText(const ScoredOptions& options) {
  return options.text_positions ? ",positions=text" : ",positions=cache";
}

absl::StatusOr<MadePolicy> MadeScored(
    const absl::StatusOr<std::shared_ptr<const CachePolicy>>& policy,
    const ReadScored& read, const PolicyContext& context,
    absl::string_view text) {
  if (!policy.ok()) return policy.status();
  const absl::Status memory = CheckMemory(**policy, context, "budget_tokens");
  if (!memory.ok()) return memory;
  return MadePolicy{.policy = *policy,
                    .text = absl::StrCat(text, PinsText(read.pins)),
                    .sink_tokens = read.options.kept(),
                    .window_tokens = read.options.recent_tokens};
}

std::vector<PolicyOptionInfo> ScoredOptionInfos(
    const ScoredOptions& defaults, const ScoredOptionNames& names,
    std::vector<PolicyOptionInfo> own) {
  std::vector<PolicyOptionInfo> infos = {
      {.name = "budget_tokens",
       .type = "uint",
       .default_value = absl::StrCat(defaults.budget_tokens),
       .range = absl::StrCat("what is always kept to trained context - ",
                             names.stride),
       .summary = "tokens that are kept at a cut"},
      {.name = std::string(names.stride),
       .type = "uint",
       .default_value = absl::StrCat(defaults.stride),
       .range = "1 to trained context - budget_tokens",
       .summary = "tokens from one cut to the next"},
      SinkTokensInfo("sink_tokens",
                     absl::StrCat("0 to budget_tokens - ", names.recent)),
      {.name = std::string(names.recent),
       .type = "uint",
       .default_value = absl::StrCat(defaults.recent_tokens),
       .range = "1 to budget_tokens - what is kept from the start",
       .summary = "newest tokens that are kept"}};
  for (PolicyOptionInfo& info : own) infos.push_back(std::move(info));
  infos.push_back({.name = "positions",
                   .type = "cache|text",
                   .default_value = "cache",
                   .range = "cache, text",
                   .summary = "distances within the cache, or in the text, "
                              "which then ends at the trained context"});
  return WithPins(std::move(infos));
}

}  // namespace millrace::cache
