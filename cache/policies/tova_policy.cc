#include "cache/policies/tova_policy.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

std::string OwnText(const ScoredOptions& options) {
  return absl::StrCat("tova:", ScoredText(options, {}), PositionsText(options));
}

class TovaPolicy final : public ScoredPolicy {
 public:
  using ScoredPolicy::ScoredPolicy;

  absl::string_view Name() const override { return "tova"; }

  std::string ToString() const override {
    return OwnText(options()) + PinnedText(options().pinned_tokens);
  }

  PolicyTraits traits() const override {
    PolicyTraits traits = ScoredPolicy::traits();
    traits.scores = ScoreNeed::kLastRow;
    return traits;
  }

 private:
  ScoreScope scope() const override { return ScoreScope::kLayer; }

  bool Weights(const ScoredState& state,
               absl::Span<float> weights) const override {
    const auto rows = static_cast<int64_t>(weights.size());
    if (state.length + rows < NextCut(state)) return false;
    std::fill(weights.begin(), weights.end(), 0.0f);
    weights.back() = 1;
    return true;
  }

  float Decay() const override { return 0; }
  bool RestartsAtCut() const override { return false; }
};

absl::StatusOr<MadePolicy> Make(const PolicyOptionReader& reader,
                                const PolicyContext& context) {
  const auto read = ReadScoredOptions(reader, context, {}, {});
  if (!read.ok()) return read.status();
  return MadeScored(NewTovaPolicy(read->options, context.trained_context),
                    *read, context, OwnText(read->options));
}

}  // namespace

PolicyDefinition TovaPolicyDefinition() {
  return {.info = {.name = "tova",
                   .summary = "drops, layer by layer, what the newest token "
                              "pays least attention to",
                   .options = ScoredOptionInfos({}, {}, {})},
          .make = Make};
}

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewTovaPolicy(
    const ScoredOptions& options, int64_t trained_context) {
  const absl::Status checked = CheckScoredOptions(options, trained_context, {});
  if (!checked.ok()) return checked;
  return std::make_shared<const TovaPolicy>(options, trained_context);
}

}  // namespace millrace::cache
