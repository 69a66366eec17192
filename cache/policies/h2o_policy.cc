#include "cache/policies/h2o_policy.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace millrace::cache {
namespace {

std::string OwnText(const H2oOptions& options) {
  return absl::StrCat(
      "h2o:", ScoredText(options.scored, {}), ",decay=", options.decay,
      ",scope=", options.scope == ScoreScope::kHead ? "head" : "layer",
      PositionsText(options.scored));
}

class H2oPolicy final : public ScoredPolicy {
 public:
  H2oPolicy(const H2oOptions& options, int64_t trained_context)
      : ScoredPolicy(options.scored, trained_context), h2o_(options) {}

  absl::string_view Name() const override { return "h2o"; }

  std::string ToString() const override {
    return OwnText(h2o_) + PinnedText(options().pinned_tokens);
  }

  PolicyTraits traits() const override {
    PolicyTraits traits = ScoredPolicy::traits();
    traits.scores = ScoreNeed::kAccumulated;
    traits.unbounded_stream &= h2o_.decay < 1;
    return traits;
  }

 private:
  ScoreScope scope() const override { return h2o_.scope; }

  bool Weights(const ScoredState&, absl::Span<float> weights) const override {
    std::fill(weights.begin(), weights.end(), 1.0f);
    return true;
  }

  float Decay() const override { return static_cast<float>(h2o_.decay); }
  bool RestartsAtCut() const override { return false; }

  const H2oOptions h2o_;
};

absl::StatusOr<MadePolicy> Make(const PolicyOptionReader& reader,
                                const PolicyContext& context) {
  H2oOptions options;
  const auto read = ReadScoredOptions(reader, context, options.scored, {});
  if (!read.ok()) return read.status();
  options.scored = read->options;
  const auto decay = reader.Number("decay", options.decay);
  if (!decay.ok()) return decay.status();
  options.decay = *decay;
  const auto layer = reader.Choice("scope", "head", "layer");
  if (!layer.ok()) return layer.status();
  options.scope = *layer ? ScoreScope::kLayer : ScoreScope::kHead;
  return MadeScored(NewH2oPolicy(options, context.trained_context), *read,
                    context, OwnText(options));
}

}  // namespace

PolicyDefinition H2oPolicyDefinition() {
  return {
      .info = {.name = "h2o",
               .summary = "drops, head by head, what got least attention since "
                          "it came",
               .options = ScoredOptionInfos(
                   H2oOptions().scored, {},
                   {{.name = "decay",
                     .type = "float",
                     .default_value = "0.999",
                     .range = "above 0, at most 1",
                     .summary = "what attention keeps of its weight from one "
                                "token to the next"},
                    {.name = "scope",
                     .type = "head|layer",
                     .default_value = "head",
                     .range = "head, layer",
                     .summary = "what chooses for itself"}})},
      .make = Make};
}

absl::StatusOr<std::shared_ptr<const CachePolicy>> NewH2oPolicy(
    const H2oOptions& options, int64_t trained_context) {
  const absl::Status checked =
      CheckScoredOptions(options.scored, trained_context, {});
  if (!checked.ok()) return checked;
  if (!(options.decay > 0 && options.decay <= 1)) {
    return InvalidPolicy("decay",
                         absl::StrCat("decay=", options.decay,
                                      ": must be above 0, and at most 1"));
  }
  return std::make_shared<const H2oPolicy>(options, trained_context);
}

}  // namespace millrace::cache
