// The contract of policies that choose by attention can fail: for each promise,
// policies that break it, and what the contract says of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_replace.h"
#include "cache/policies/h2o_policy.h"
#include "cache/policies/snapkv_policy.h"
#include "tests/cache/contract/broken_policy.h"
#include "tests/cache/contract/properties.h"

namespace millrace::cache {
namespace {

constexpr int64_t kPrefix = 3, kNewest = 5, kBudget = 20, kStride = 8;
constexpr int64_t kContext = 8192;

PolicyPtr SoundH2o() {
  return *NewH2oPolicy({.scored = {.budget_tokens = kBudget,
                                   .stride = kStride,
                                   .sink_tokens = kPrefix,
                                   .recent_tokens = kNewest},
                        .decay = 0.9},
                       kContext);
}

PolicyPtr SoundSnapkv() {
  return *NewSnapkvPolicy({.scored = {.budget_tokens = kBudget,
                                      .stride = kStride,
                                      .sink_tokens = kPrefix,
                                      .recent_tokens = kNewest}},
                          kContext);
}

// A sound policy in all that a broken one does not override.
class SoundChoice : public CachePolicy, public AttentionScoring {
 public:
  explicit SoundChoice(PolicyPtr sound = SoundH2o())
      : sound_(std::move(sound)) {}

  absl::string_view Name() const override { return sound_->Name(); }
  std::string ToString() const override { return sound_->ToString(); }
  PolicyTraits traits() const override { return sound_->traits(); }
  int64_t MaxResidentTokens(int64_t num_new) const override {
    return sound_->MaxResidentTokens(num_new);
  }
  int64_t MaxDistance() const override { return sound_->MaxDistance(); }
  std::vector<RunRule> Rules(int64_t t) const override {
    return sound_->Rules(t);
  }
  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t num_new) const override {
    return sound_->Plan(view, num_new);
  }
  const AttentionScoring* scoring() const override { return this; }

  ScoreScope scope() const override { return choice().scope(); }
  int64_t budget_tokens() const override { return choice().budget_tokens(); }
  int64_t NextCut(const ScoredState& state) const override {
    return choice().NextCut(state);
  }
  bool CutsAt(const ScoredState& state) const override {
    return choice().CutsAt(state);
  }
  bool Weights(const ScoredState& state,
               absl::Span<float> weights) const override {
    return choice().Weights(state, weights);
  }
  float Decay() const override { return choice().Decay(); }
  bool RestartsAtCut() const override { return choice().RestartsAtCut(); }
  int64_t HeldBackTokens() const override { return choice().HeldBackTokens(); }
  int64_t MostWhileWriting() const override {
    return choice().MostWhileWriting();
  }
  std::vector<int64_t> Survivors(absl::Span<const float> sums) const override {
    return choice().Survivors(sums);
  }

 private:
  const AttentionScoring& choice() const { return *sound_->scoring(); }

  const PolicyPtr sound_;
};

using Positions = std::vector<int64_t>;
using Numbers = absl::Span<const float>;

struct StandsStill : SoundChoice {
  int64_t NextCut(const ScoredState& s) const override { return s.length; }
};

struct PromisesOneTooFew : SoundChoice {
  int64_t MaxResidentTokens(int64_t) const override {
    return kBudget + kStride - 1;
  }
};

struct ForgetsEverySecondCut : SoundChoice {
  bool CutsAt(const ScoredState& s) const override {
    return s.length % (2 * kStride) == 0;
  }
};

// Tokens that were chosen once are chosen again.
struct RemembersItsChoice : SoundChoice {
  Positions Survivors(Numbers sums) const override {
    std::vector<float> more(sums.begin(), sums.end());
    for (const int64_t p : chosen) {
      if (p < static_cast<int64_t>(more.size())) more[p] += 0.5f;
    }
    return chosen = SoundChoice::Survivors(more);
  }
  mutable Positions chosen;
};

struct KeepsOneTooFew : SoundChoice {
  Positions Survivors(Numbers sums) const override {
    Positions survivors = SoundChoice::Survivors(sums);
    survivors.erase(survivors.begin() + kPrefix);
    return survivors;
  }
};

struct Descends : SoundChoice {
  Positions Survivors(Numbers sums) const override {
    Positions survivors = SoundChoice::Survivors(sums);
    std::reverse(survivors.begin(), survivors.end());
    return survivors;
  }
};

struct DropsASink : SoundChoice {
  Positions Survivors(Numbers sums) const override {
    Positions survivors = SoundChoice::Survivors(sums);
    for (int64_t i = 0; i < kPrefix; ++i) ++survivors[i];
    return survivors;
  }
};

struct DropsTheNewest : SoundChoice {
  Positions Survivors(Numbers sums) const override {
    return SoundChoice::Survivors(sums.first(sums.size() - 1));
  }
};

struct KeepsTheOlderOfEquals : SoundChoice {
  Positions Survivors(Numbers sums) const override {
    std::vector<float> less(sums.begin(), sums.end());
    for (size_t i = 0; i < less.size(); ++i) less[i] -= 1e-4f * i;
    return SoundChoice::Survivors(less);
  }
};

struct IgnoresTheSums : SoundChoice {
  Positions Survivors(Numbers sums) const override {
    return SoundChoice::Survivors(std::vector<float>(sums.size()));
  }
};

// Whatever a chunk is.
struct CountsTheLastRowOfAChunk : SoundChoice {
  bool Weights(const ScoredState&, absl::Span<float> weights) const override {
    std::fill(weights.begin(), weights.end(), 0.0f);
    weights.back() = 1;
    return true;
  }
};

struct SaysThatRowsCount : SoundChoice {
  bool Weights(const ScoredState&, absl::Span<float> weights) const override {
    std::fill(weights.begin(), weights.end(), 0.0f);
    return true;
  }
};

struct PlansToEvict : SoundChoice {
  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t) const override {
    return EvictionPlan{.evict = {{kPrefix, view.length}}};
  }
};

struct RefusesALongText : SoundChoice {
  absl::StatusOr<EvictionPlan> Plan(const SequenceView& view,
                                    int64_t num_new) const override {
    if (view.length > 100) return absl::FailedPreconditionError("full");
    return SoundChoice::Plan(view, num_new);
  }
};

struct SeesTheFuture : SoundChoice {
  std::vector<RunRule> Rules(int64_t) const override {
    return {{.end = kPrefix, .shift = 1}, {.begin = kPrefix, .shift = 1}};
  }
};

struct PromisesAShorterReach : SoundChoice {
  int64_t MaxDistance() const override {
    return SoundChoice::MaxDistance() - 1;
  }
};

struct PromisesLessForAChunk : SoundChoice {
  int64_t MaxResidentTokens(int64_t num_new) const override {
    return SoundChoice::MaxResidentTokens(num_new) - (num_new > 1 ? 1 : 0);
  }
};

struct CountsForgottenRows : SoundChoice {
  PolicyTraits traits() const override {
    PolicyTraits traits = SoundChoice::traits();
    traits.scores = ScoreNeed::kLastRow;  // nothing to take back
    return traits;
  }
};

struct HoldsNoVotesBack : SoundChoice {
  HoldsNoVotesBack() : SoundChoice(SoundSnapkv()) {}
  int64_t HeldBackTokens() const override { return 0; }
};

// For whoever asks after the sequence was opened.
struct HidesItsScoring : SoundChoice {
  const AttentionScoring* scoring() const override {
    return ++asked > 2 ? nullptr : this;
  }
  mutable int asked = 0;
};

struct ChangesItsRules : SoundChoice {
  std::vector<RunRule> Rules(int64_t t) const override {
    return {{.end = kPrefix}, {.begin = kPrefix, .window = 50 + t % 2}};
  }
};

struct LosesAnOptionInItsText : SoundChoice {
  std::string ToString() const override {
    return absl::StrReplaceAll(SoundChoice::ToString(),
                               {{",evict_stride=8", ""}});
  }
};

std::vector<Control> Controls() {
  return {
      Broken<ChangesItsRules>("RulesHoldUntilTheNextCut",
                              "other rules than row"),
      Broken<LosesAnOptionInItsText>("TheTextGivesTheSamePolicy",
                                     "gives another policy"),
      Broken<StandsStill>("CutsKeepTheBound", "the next cut is"),
      Broken<PromisesOneTooFew>("CutsKeepTheBound", "27 promised"),
      Broken<ForgetsEverySecondCut>("CutsKeepTheBound", "no cut is made at 8"),
      Broken<RemembersItsChoice>("SurvivorsAreRepeatable", "others survive"),
      Broken<KeepsOneTooFew>("SurvivorsFillTheBudget",
                             "19 survive, the budget is 20"),
      Broken<Descends>("SurvivorsFillTheBudget", "not in order"),
      Broken<DropsASink>("ProtectedAndNewestSurvive", "0 does not survive"),
      Broken<DropsTheNewest>("ProtectedAndNewestSurvive",
                             "does not survive; the first 3 and the last 5"),
      Broken<KeepsTheOlderOfEquals>("TheOlderOfEqualsGoes", "of equal ones"),
      Broken<IgnoresTheSums>("SurvivorsFollowTheSums", "which got most"),
      Broken<CountsTheLastRowOfAChunk>("RowsCountAlikeInAnyChunk",
                                       "and alone 1"),
      Broken<SaysThatRowsCount>("RowsCountAlikeInAnyChunk", "no row counts"),
      Broken<PlansToEvict>("PlansEvictNothing", "3 is evicted by a plan"),
      Broken<RefusesALongText>("PlansEvictNothing", "full"),
      Broken<DropsASink>("HeadsHoldWhatTheyShould", "0 is gone, of 3"),
      Broken<DropsTheNewest>("HeadsHoldWhatTheyShould", "of the 5 newest"),
      Broken<Descends>("HeadsHoldWhatTheyShould", "is gone, of 3"),
      Broken<SeesTheFuture>("KeysAreAtBoundedDistances", "distances are -1"),
      Broken<PromisesAShorterReach>("KeysAreAtBoundedDistances",
                                    "0 to 27, not 0 to 26"),
      Broken<PromisesLessForAChunk>("HeldTokensAreBounded",
                                    "28 were held, 27 promised"),
      Broken<CountsTheLastRowOfAChunk>("ChunksOfTheTextDoNotMatter", "row"),
      Broken<RemembersItsChoice>("ChunksOfTheTextDoNotMatter", "see"),
      Broken<CountsForgottenRows>("CutTextLeavesNoTrace", "row"),
      Broken<HoldsNoVotesBack>("CutTextLeavesNoTrace", "row"),
      Broken<RemembersItsChoice>("AClearedTextLeavesNoTrace", "see"),
      Broken<RemembersItsChoice>("ARestoredTextGoesOn", "others are resident"),
      Broken<HidesItsScoring>("WhatNoHeadHoldsIsAnnounced", "by no head"),
  };
}

TEST(BrokenChoicesTest, AreFoundOut) {
  ExpectFoundOut(ScoredContract(), Controls());
}

TEST(BrokenChoicesTest, ThereIsOneForEachPromise) {
  ExpectOneForEachPromise(ScoredContract(), Controls());
}

TEST(BrokenChoicesTest, TheSoundOnesKeepEveryPromise) {
  ExpectEveryPromiseKept(ScoredContract(), []() -> PolicyPtr {
    return std::make_shared<const SoundChoice>();
  });
  ExpectEveryPromiseKept(ScoredContract(), []() -> PolicyPtr {
    return std::make_shared<const SoundChoice>(SoundSnapkv());
  });
}

}  // namespace
}  // namespace millrace::cache
