// What a policy and the cache manager promise of a sequence that is put away
// and goes on elsewhere.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cache/visibility_ledger.h"
#include "tests/cache/contract/properties.h"
#include "tests/cache/contract/random_case.h"
#include "tests/cache/contract/scored_cache.h"
#include "tests/cache/contract/text_history.h"

namespace millrace::cache {
namespace {

// A sequence without memory: where each of its tokens lies is what counts.
class Places {
 public:
  Places(const SequenceOptions& options, KvDtype dtype)
      : options_(options),
        manager_(KvSpec{.dtype = dtype},
                 static_cast<int32_t>(MaxBlocks(options, dtype))),
        id_(manager_.Open(options).value()) {}

  void Restore(const Places& other) {
    manager_.Close(id_);
    id_ = manager_.Restore(options_, other.manager_.Record(other.id_)).value();
  }

  // What comes of a step: the views of each chunk, what is held, how far it can
  // be cut back.
  std::string Carry(const Step& step) {
    told_.clear();
    switch (step.kind) {
      case Step::kAppend:
        Append(step.tokens);
        break;
      case Step::kCut:
        Tell(manager_
                 .Truncate(id_, std::max<int64_t>(
                                    0, manager_.Length(id_) - step.tokens))
                 .ok());
        break;
      case Step::kClear:
        manager_.Clear(id_);
    }
    Tell(manager_.Length(id_), manager_.EarliestCut(id_));
    for (const TextRange& r : manager_.Resident(id_)) Tell(r.begin, r.end);
    TellPlaces(manager_.View(id_));
    return told_;
  }

 private:
  void Append(int64_t tokens) {
    const int64_t end = manager_.Length(id_) + tokens;
    for (int64_t next = manager_.Length(id_); next < end;
         next = std::max(next, manager_.Length(id_))) {
      const int64_t begin = manager_.Rebuild(id_, next);
      const absl::StatusOr<KvView> view =
          manager_.Reserve(id_, std::min(end - begin, manager_.MaxChunk(id_)));
      Tell(begin, view.ok());
      if (!view.ok()) return;
      for (const KvRun& run : view->runs) {
        Tell(run.rule.begin, run.rule.end, run.rule.window, run.rule.query_cap,
             run.rule.shift, run.first_position, run.length);
      }
      manager_.Commit(id_);
    }
  }

  // The block of every token as a place in the list of blocks.
  void TellPlaces(const KvView& view) {
    const std::vector<KvBlock> blocks = manager_.Blocks(id_);
    Tell(blocks.size());
    for (const KvRun& run : view.runs) {
      for (int64_t p = run.first_position; p < run.end_position(); ++p) {
        const KvView::Slot slot = view.Find(p);
        const auto block =
            std::find(blocks.begin(), blocks.end(), slot.kv_block());
        Tell(block == blocks.end() ? -1 : block - blocks.begin(), slot.slot);
      }
    }
  }

  template <class... Numbers>
  void Tell(Numbers... numbers) {
    (absl::StrAppend(&told_, numbers, " "), ...);
  }

  const SequenceOptions options_;
  CacheManager manager_;
  SequenceId id_;
  std::string told_;
};

}  // namespace

std::string ARestoredSequenceGoesOn(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const SequenceOptions options = OptionsFor(policy, random);
  Places first(options, random.dtype()), second(options, random.dtype());
  for (int64_t i = random.Below(20); i > 0; --i) first.Carry(random.NextStep());
  second.Restore(first);
  for (int i = 0; i < 15; ++i) {
    const Step step = random.NextStep();
    const std::string told = first.Carry(step);
    if (told.find("-1 ") != std::string::npos) return "a token has no block";
    if (second.Carry(step) != told) {
      return absl::StrCat("step ", i, " goes another way once restored");
    }
  }
  return "";
}

std::string ARestoredTextGoesOn(const PolicyPtr& policy, uint32_t seed) {
  RandomCase random(seed);
  const SequenceOptions options = OptionsFor(policy, random);
  ScoredCache first(options, random.dtype(), seed, RandomChunks(random));
  ScoredCache second(options, random.dtype(), seed, RandomChunks(random));
  History history(&random);
  for (int64_t i = random.Below(5); i > 0; --i) history.Grow(first);
  second.Restore(first);
  for (int i = 0; i < 4; ++i) {
    if (random.Below(3) == 0) {
      const int64_t earliest = first.manager().EarliestCut(first.id());
      const int64_t length =
          earliest + random.Below(first.text_length() - earliest + 1);
      if (first.CutTo(length) != second.CutTo(length) ||
          first.length() != second.length()) {
        return absl::StrCat("a cut to ", length, " goes another way");
      }
      history.CutTo(length);
    }
    // The same in both.
    const Names read = history.Next(1 + random.Below(40));
    const Names more = history.Next(1 + random.Below(60));
    first.Read(read);
    second.Read(read);
    history.Add(true, true, read);
    const Names written(more.begin() + std::min(read.size(), more.size()),
                        more.end());
    const int64_t count = first.Write(written);
    if (second.Write(written) != count) return "other tokens are refused";
    history.Add(false, true, Names(written.begin(), written.begin() + count));
    if (first.manager().Resident(first.id()) !=
        second.manager().Resident(second.id())) {
      return "others are resident";
    }
  }
  const std::string difference = Difference(
      first, second, policy->traits().scores == ScoreNeed::kAccumulated);
  return difference.empty() ? second.violation() : difference;
}

}  // namespace millrace::cache
