// The contract can fail: for each promise, policies that break it, and what
// the contract says of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_replace.h"
#include "cache/policies/sinks_policy.h"
#include "tests/cache/contract/broken_policy.h"
#include "tests/cache/contract/properties.h"

namespace millrace::cache {
namespace {

constexpr int64_t kPrefix = 4, kWindow = 20;

PolicyPtr FourSinksAndAWindow() {
  return NewSinksPolicy({.sink_tokens = kPrefix, .window_tokens = kWindow},
                        /*trained_context=*/8192)
      .value();
}

// Four sinks and a window of 20, in all that a broken policy does not override.
class SoundPolicy : public CachePolicy {
 public:
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

 private:
  const PolicyPtr sound_ = FourSinksAndAWindow();
};

// The sound policy with another window, for Plan alone or Rules alone.
std::vector<RunRule> RulesOfWindow(int64_t window) {
  return {{.end = kPrefix, .query_cap = kPrefix + kWindow},
          {.begin = kPrefix, .window = window}};
}
EvictionPlan PlanOfWindow(const SequenceView& view, int64_t window) {
  return {.evict = Within(view.resident, {kPrefix, view.first_row - window})};
}

using MaybePlan = absl::StatusOr<EvictionPlan>;

struct EvictsASink : SoundPolicy {
  MaybePlan Plan(const SequenceView& view, int64_t) const override {
    const TextRange old{kPrefix - 1, view.first_row - kWindow};
    return EvictionPlan{.evict = Within(view.resident, old)};
  }
};

struct ForgetsToEvict : SoundPolicy {
  MaybePlan Plan(const SequenceView&, int64_t) const override {
    return EvictionPlan{};
  }
};

struct EvictsOneTooMany : SoundPolicy {
  MaybePlan Plan(const SequenceView& view, int64_t) const override {
    return PlanOfWindow(view, kWindow - 1);
  }
};

// As if all of a chunk were there already.
struct EvictsForTheLastRowOfAChunk : SoundPolicy {
  MaybePlan Plan(const SequenceView& view, int64_t num_new) const override {
    return PlanOfWindow(view, kWindow - (num_new - 1));
  }
};

struct KeepsOneTooMany : SoundPolicy {
  MaybePlan Plan(const SequenceView& view, int64_t) const override {
    return PlanOfWindow(view, kWindow + 1);
  }
};

struct EvictsHalfOfIt : SoundPolicy {
  MaybePlan Plan(const SequenceView& view, int64_t num_new) const override {
    EvictionPlan plan = *SoundPolicy::Plan(view, num_new);
    for (TextRange& range : plan.evict) {
      range.end = range.begin + (range.size() + 1) / 2;
    }
    return plan;
  }
};

struct PlansAnotherWayEachTime : SoundPolicy {
  MaybePlan Plan(const SequenceView& view, int64_t) const override {
    return PlanOfWindow(view, kWindow + ++calls % 2);
  }
  mutable int calls = 0;
};

struct RefusesALongText : SoundPolicy {
  MaybePlan Plan(const SequenceView& view, int64_t num_new) const override {
    if (view.length > 100) return absl::FailedPreconditionError("full");
    return SoundPolicy::Plan(view, num_new);
  }
};

struct PromisesOneTooFew : SoundPolicy {
  int64_t MaxResidentTokens(int64_t num_new) const override {
    return SoundPolicy::MaxResidentTokens(num_new) - 1;
  }
};

struct ForgetsTheChunkInItsPromise : SoundPolicy {
  int64_t MaxResidentTokens(int64_t) const override {
    return kPrefix + kWindow + 1;
  }
};

struct SeesFurtherFromEveryTenthRow : SoundPolicy {
  std::vector<RunRule> Rules(int64_t t) const override {
    return RulesOfWindow(t % 10 == 0 ? kWindow : kWindow - 2);
  }
};

struct LosesSightOfASink : SoundPolicy {
  std::vector<RunRule> Rules(int64_t t) const override {
    std::vector<RunRule> rules = SoundPolicy::Rules(t);
    if (t > 200) rules[0].begin = 1;
    return rules;
  }
};

struct OverlapsItsRules : SoundPolicy {
  std::vector<RunRule> Rules(int64_t) const override {
    std::vector<RunRule> rules = RulesOfWindow(kWindow);
    rules[1].begin = kPrefix - 1;
    return rules;
  }
};

struct LeavesSinksAtTextDistances : SoundPolicy {
  std::vector<RunRule> Rules(int64_t) const override {
    std::vector<RunRule> rules = RulesOfWindow(kWindow);
    rules[0].query_cap = kUnlimited;
    return rules;
  }
};

struct BringsSinksTooNear : SoundPolicy {
  std::vector<RunRule> Rules(int64_t) const override {
    std::vector<RunRule> rules = RulesOfWindow(kWindow);
    rules[0].query_cap = kPrefix - 2;
    return rules;
  }
};

// The edge of the window belongs to the chunk, not to the row.
struct SeesByTheChunk : SoundPolicy {
  std::vector<RunRule> Rules(int64_t t) const override {
    std::vector<RunRule> rules = RulesOfWindow(kUnlimited);
    rules[1].begin = std::max(kPrefix, t - kWindow);
    return rules;
  }
};

struct StandsStillAtACut : SoundPolicy {
  int64_t NextCut(int64_t t) const override { return t; }
};

struct LosesAnOptionInItsText : SoundPolicy {
  std::string ToString() const override {
    return absl::StrReplaceAll(SoundPolicy::ToString(),
                               {{",window_tokens=20", ""}});
  }
};

struct IgnoresTheHold : SoundPolicy {
  MaybePlan Plan(const SequenceView& view, int64_t) const override {
    SequenceView now = view;
    now.first_row = view.length;
    return PlanOfWindow(now, kWindow);
  }
};

struct ChangesItsMind : SoundPolicy {
  std::vector<RunRule> Rules(int64_t) const override {
    return RulesOfWindow(kWindow + ++calls % 2);
  }
  mutable int calls = 0;
};

std::vector<Control> Controls() {
  return {
      Broken<OverlapsItsRules>("RulesAreInOrder", "overlap"),
      Broken<LosesSightOfASink>("RulesAreInOrder", "protected token 0"),
      Broken<StandsStillAtACut>("RulesHoldUntilTheNextCut", "the next cut is"),
      Broken<SeesFurtherFromEveryTenthRow>("RulesHoldUntilTheNextCut",
                                           "other rules than row"),
      Broken<SeesFurtherFromEveryTenthRow>("VisibilityIsMonotone",
                                           "did not see any more"),
      Broken<LeavesSinksAtTextDistances>("DistancesAreBounded", "not 0 to 24"),
      Broken<BringsSinksTooNear>("DistancesAreBounded", "is -1, not 0 to 24"),
      Broken<ChangesItsMind>("TheLedgerIsComplete", "the account of"),
      Broken<LosesAnOptionInItsText>("TheTextGivesTheSamePolicy",
                                     "gives another policy"),
      Broken<EvictsASink>("ProtectedTokensStay", "3 is evicted, of 4"),
      Broken<EvictsOneTooMany>("NothingSeenIsEvicted", "and it is evicted"),
      Broken<EvictsForTheLastRowOfAChunk>("NothingSeenIsEvicted",
                                          "and it is evicted"),
      Broken<ForgetsToEvict>("NothingUnseenIsKept", "and it is kept"),
      Broken<KeepsOneTooMany>("NothingUnseenIsKept", "and it is kept"),
      Broken<PlansAnotherWayEachTime>("PlansAreRepeatable", "another plan"),
      Broken<EvictsHalfOfIt>("PlansAreEmptyOnceApplied",
                             "is to be evicted too"),
      Broken<ForgetsToEvict>("ResidentTokensAreBounded", "are resident"),
      Broken<PromisesOneTooFew>("ResidentTokensAreBounded", "are resident"),
      Broken<ForgetsTheChunkInItsPromise>("ResidentTokensAreBounded",
                                          "are resident"),
      Broken<RefusesALongText>("ResidentTokensAreBounded", "full"),
      Broken<EvictsOneTooMany>("RowsReadWhatWasWritten", "is not given"),
      Broken<SeesByTheChunk>("ChunksDoNotMatter", "what it sees alone"),
      Broken<IgnoresTheHold>("CutsAreExactOrRefused", "no cut is below"),
      Broken<PromisesOneTooFew>("TheReservationIsEnough", "were resident"),
      Broken<PlansAnotherWayEachTime>("ARestoredSequenceGoesOn",
                                      "goes another way once restored"),
  };
}

TEST(BrokenPoliciesTest, AreFoundOut) {
  ExpectFoundOut(RangeContract(), Controls());
}

TEST(BrokenPoliciesTest, ThereIsOneForEachPromise) {
  ExpectOneForEachPromise(RangeContract(), Controls());
}

TEST(BrokenPoliciesTest, TheSoundOneKeepsEveryPromise) {
  ExpectEveryPromiseKept(RangeContract(), []() -> PolicyPtr {
    return std::make_shared<const SoundPolicy>();
  });
}

}  // namespace
}  // namespace millrace::cache
