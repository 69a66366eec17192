// What Plan promises, without a cache manager: plans are applied to a list of
// positions.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/cache/contract/properties.h"
#include "tests/cache/contract/random_case.h"

namespace millrace::cache {
namespace {

bool Holds(const std::vector<TextRange>& ranges, int64_t p) {
  return std::any_of(ranges.begin(), ranges.end(), [p](const TextRange& range) {
    return p >= range.begin && p < range.end;
  });
}

// A sequence as the contract knows it: which positions are resident.
class ListedSequence {
 public:
  ListedSequence(PolicyPtr policy, int64_t hold)
      : policy_(std::move(policy)), hold_(hold) {}

  // A text of `length` tokens of which there is what the last row sees, and
  // the hold and `more` tokens before that.
  void StartAt(int64_t length, int64_t more) {
    length_ = length;
    resident_.clear();
    const int64_t prefix = policy_->traits().protected_prefix;
    for (int64_t p = 0; p < std::min(prefix, length); ++p) {
      resident_.push_back(p);
    }
    const int64_t reach = policy_->MaxDistance() + hold_ + more;
    for (int64_t p = std::max(prefix, length - reach); p < length; ++p) {
      resident_.push_back(p);
    }
  }

  absl::StatusOr<EvictionPlan> Plan(int64_t num_new) const {
    const std::vector<TextRange> ranges = Ranges();
    return policy_->Plan(
        {.length = length_, .first_row = first_row(), .resident = ranges},
        num_new);
  }

  void Apply(const EvictionPlan& plan) {
    resident_.erase(
        std::remove_if(resident_.begin(), resident_.end(),
                       [&](int64_t p) { return Holds(plan.evict, p); }),
        resident_.end());
  }

  void Append(int64_t tokens) {
    for (int64_t i = 0; i < tokens; ++i) resident_.push_back(length_++);
  }

  void CutTo(int64_t length) {
    length_ = length;
    while (!resident_.empty() && resident_.back() >= length) {
      resident_.pop_back();
    }
  }

  // No row to come is below it.
  int64_t first_row() const { return std::max<int64_t>(0, length_ - hold_); }

  int64_t length() const { return length_; }
  const std::vector<int64_t>& resident() const { return resident_; }

 private:
  std::vector<TextRange> Ranges() const {
    std::vector<TextRange> ranges;
    for (const int64_t p : resident_) {
      if (!ranges.empty() && ranges.back().end == p) {
        ++ranges.back().end;
      } else {
        ranges.push_back({p, p + 1});
      }
    }
    return ranges;
  }

  const PolicyPtr policy_;
  const int64_t hold_;
  int64_t length_ = 0;
  std::vector<int64_t> resident_;  // ascending
};

// A plan, and what it was made for.
struct Planned {
  explicit Planned(const PolicyPtr& policy, uint32_t seed)
      : random(seed), sequence(policy, random.hold()) {
    sequence.StartAt(random.Position(*policy), random.Below(60));
    num_new = random.Chunk();
    plan = sequence.Plan(num_new);
  }

  RandomCase random;
  ListedSequence sequence;
  int64_t num_new;
  absl::StatusOr<EvictionPlan> plan;
};

// Whether a row to come sees p. That is the first one that can, as visibility
// is monotone.
bool IsNeeded(const CachePolicy& policy, int64_t first_row, int64_t p) {
  const int64_t t = std::max(first_row, p);
  return Sees(policy.Rules(t), t, p);
}

}  // namespace

std::string ProtectedTokensStay(const PolicyPtr& policy, uint32_t seed) {
  const Planned planned(policy, seed);
  if (!planned.plan.ok()) return "";
  const int64_t prefix = policy->traits().protected_prefix;
  for (const TextRange& range : planned.plan->evict) {
    if (range.begin < prefix && !range.empty()) {
      return absl::StrCat("at ", planned.sequence.length(), " tokens ",
                          range.begin, " is evicted, of ", prefix,
                          " protected tokens");
    }
  }
  return "";
}

std::string NothingSeenIsEvicted(const PolicyPtr& policy, uint32_t seed) {
  const Planned planned(policy, seed);
  if (!planned.plan.ok()) return "";
  const int64_t first_row = planned.sequence.first_row();
  for (const int64_t p : planned.sequence.resident()) {
    if (Holds(planned.plan->evict, p) && IsNeeded(*policy, first_row, p)) {
      return absl::StrCat("rows from ", first_row, " on see ", p,
                          ", and it is evicted");
    }
  }
  return "";
}

std::string NothingUnseenIsKept(const PolicyPtr& policy, uint32_t seed) {
  const Planned planned(policy, seed);
  if (!planned.plan.ok()) return "";
  const int64_t first_row = planned.sequence.first_row();
  for (const int64_t p : planned.sequence.resident()) {
    if (!Holds(planned.plan->evict, p) && !IsNeeded(*policy, first_row, p)) {
      return absl::StrCat("no row from ", first_row, " on sees ", p,
                          ", and it is kept");
    }
  }
  return "";
}

std::string PlansAreRepeatable(const PolicyPtr& policy, uint32_t seed) {
  const Planned planned(policy, seed);
  const auto again = planned.sequence.Plan(planned.num_new);
  if (again.status() != planned.plan.status()) return "another status";
  if (!again.ok()) return "";
  if (!(*again == *planned.plan)) return "equal facts, another plan";
  int64_t end = 0;
  for (const TextRange& range : again->evict) {
    if (range.empty() || range.begin < end) {
      return absl::StrCat("[", range.begin, ",", range.end,
                          ") is empty, or not after the range before it");
    }
    end = range.end;
  }
  return "";
}

std::string PlansAreEmptyOnceApplied(const PolicyPtr& policy, uint32_t seed) {
  Planned planned(policy, seed);
  if (!planned.plan.ok()) return "";
  planned.sequence.Apply(*planned.plan);
  const auto again = planned.sequence.Plan(planned.num_new);
  if (!again.ok()) return std::string(again.status().message());
  if (again->evict.empty()) return "";
  return absl::StrCat("planned again, ", again->evict[0].begin,
                      " is to be evicted too");
}

std::string ResidentTokensAreBounded(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  ListedSequence sequence(policy, random.hold());
  const int64_t bound =
      policy->MaxResidentTokens(random.max_chunk() + random.hold());
  for (int i = 0; i < 40; ++i) {
    const Step step = random.NextStep();
    if (step.kind != Step::kAppend) {
      const bool clear = step.kind == Step::kClear;
      sequence.CutTo(
          clear ? 0 : std::max<int64_t>(0, sequence.length() - step.tokens));
      continue;
    }
    const auto plan = sequence.Plan(step.tokens);
    if (!plan.ok()) {
      const int64_t length = sequence.length() + step.tokens;
      if (length > bound && !policy->traits().unbounded_stream) continue;
      return absl::StrCat(length, " tokens: ", plan.status().message());
    }
    sequence.Apply(*plan);
    sequence.Append(step.tokens);
    // Rebuild keeps to this bound: see TheReservationIsEnough.
    if (policy->traits().recomputes) continue;
    const int64_t resident = static_cast<int64_t>(sequence.resident().size());
    if (resident > bound) {
      return absl::StrCat("at ", sequence.length(), " tokens ", resident,
                          " are resident, ", bound, " promised");
    }
  }
  return "";
}

}  // namespace millrace::cache
