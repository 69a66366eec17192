// The engine's own side of a sequence: what is pending, what is computed, and
// the ids that a cut may have to compute once more.
#ifndef MILLRACE_SERVICES_ENGINE_ENGINE_SEQUENCE_H_
#define MILLRACE_SERVICES_ENGINE_ENGINE_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/cache_manager.h"
#include "cache/kv_view.h"
#include "services/engine/engine.h"
#include "services/engine/ngram_draft.h"
#include "services/engine/pending_tokens.h"
#include "services/engine/scheduler.h"
#include "services/engine/step.h"

namespace millrace::engine {

class EngineSequence;

// All sequences of an engine, by id, and what they share.
struct SequenceTable {
  cache::CacheManager cache;
  absl::flat_hash_map<int64_t, EngineSequence*> open;
  uint64_t steps = 0;                  // that have run
  SpeculationCounts speculation = {};  // of all sequences, closed ones included
};

class EngineSequence final : public Sequence {
 public:
  // Opens the sequence in the cache and enters it into `table`, which outlives
  // it. RESOURCE_EXHAUSTED as CacheManager::Open says.
  static absl::StatusOr<std::unique_ptr<EngineSequence>> Open(
      const cache::SequenceOptions& options, SequenceClient* client,
      SequenceTable* table);
  ~EngineSequence() override;

  int64_t id() const override { return id_; }
  const std::shared_ptr<const cache::CachePolicy>& policy() const override {
    return options_.policy;
  }
  void Append(absl::Span<const int32_t> ids) override;
  void WantLogits(Logits which) override;
  void SetPaused(bool paused) override { paused_ = paused; }
  int64_t computed_tokens() const override { return computed_; }
  int64_t pending_tokens() const override {
    return pending_.size() - computed_anew();
  }
  absl::Status Truncate(int64_t length) override;
  int64_t EarliestCut() const override;
  void Clear() override;
  int64_t resident_tokens() const override;
  int64_t peak_resident_tokens() const override;
  int64_t reserved_bytes() const override;
  int64_t readable_tokens() const override {
    return pending_tokens() - HeldBack();
  }
  int64_t room_to_write() const override;
  std::vector<cache::TextRange> Held() const override;
  void SetSpeculation(Speculation which) override { speculation_ = which; }
  SpeculationCounts speculation_counts() const override { return counts_; }

  SequenceFacts Facts() const;
  SequenceClient* client() const { return client_; }

  // Before each step: tells the cache where the input ends, as far as that is
  // known. Where the policy wants visible tokens computed anew for the next row
  // whose logits are wanted, puts them before the pending ones; and skips
  // pending ones that no such row sees.
  void Prepare();

  // The tokens of the queue are the pending ones, and before them those that
  // are computed once more. The first is at cached_tokens().
  int64_t queued_tokens() const { return pending_.size(); }
  int64_t cached_tokens() const { return table_->cache.Length(id_); }
  int64_t computed_anew() const { return computed_ - cached_tokens(); }

  // Makes room for the first `tokens` of the queue: what their rows read.
  absl::StatusOr<cache::KvView> Reserve(int tokens);
  // Does so, and says what a step computes of them.
  absl::StatusOr<StepPart> PreparePart(int tokens);
  // The first `tokens` of the last Reserve are computed.
  void Commit(int tokens);
  // They are not, and will not be.
  void Drop() { table_->cache.Drop(id_); }
  void DropPending();

  // ---- A step that is begun behind another ----
  // Whether a row of it can be dropped without a trace: no sums of attention,
  // nothing computed anew.
  bool LeavesNoTrace() const;
  // Whether all is computed, and the next token comes of it alone.
  bool AwaitsPick() const { return PicksNext() && pending_.empty(); }
  // The part of that token, which is still being picked. REQUIRES: AwaitsPick.
  absl::StatusOr<StepPart> PreparePick();
  // Commits the part if it is what the queue begins with, now that its ids are
  // known, and nothing more is wanted of it; else drops it, and returns false.
  bool CommitBegun(const StepPart& part);

  // ---- Guessed tokens ----
  // What may come after the one token that is queued, at most `most`. Borrowed
  // until the next call of this.
  absl::Span<const int32_t> Guess(int64_t most);
  // NgramDraft::ProposesNext, if guesses are wanted at all.
  bool GuessComesNext();
  // As Reserve(1), and `guessed` tokens behind that one.
  absl::StatusOr<cache::KvView> ReserveGuess(int guessed);
  // Whether the client has picked what was guessed next, and waits for its
  // logits; then that token is computed, too.
  bool Accept(int32_t id);
  // Gives up what was guessed and not accepted.
  void EndGuess(int guessed, int accepted);

  // Whether the next token follows from the last queued one, and nothing else
  // is wanted of it.
  bool PicksNext() const { return wanted_ == Logits::kLast; }

  // Rows of which logits are wanted, counted from the last, when `tokens`, of
  // which `anew` are computed once more, and of which `queued` are not yet.
  int WantedRows(int tokens, int anew, int64_t queued) const;

 private:
  EngineSequence(cache::SequenceId id, const cache::SequenceOptions& options,
                 SequenceClient* client, SequenceTable* table)
      : id_(id), options_(options), client_(client), table_(table) {}

  void Rebuild();
  // Whether the rows of an input that have a vote depend on where it ends.
  bool ReadsInputs() const;
  void AddInput(int64_t begin, int64_t end);
  void CutInputs(int64_t length);
  // As CacheManager::SetInputEnd has it, for the next token.
  int64_t InputEnd() const;
  // How many tokens follow before an input begins.
  int64_t WrittenAhead() const;
  // The input that waits for its end to be known.
  int64_t HeldBack() const;
  // Puts known tokens that the cache has given up before the pending ones.
  void Requeue();
  void Skip(int64_t tokens);
  void Remember(absl::Span<const int32_t> ids);
  // The first text position whose id may still be asked for.
  int64_t FirstNeededId() const;
  void ForgetIds();

  const cache::SequenceId id_;
  const cache::SequenceOptions options_;
  SequenceClient* const client_;
  SequenceTable* const table_;
  Logits wanted_ = Logits::kNone;
  bool paused_ = false;
  Speculation speculation_ = Speculation::kNone;
  SpeculationCounts counts_;
  NgramDraft draft_;          // knows the text, if it can be used
  uint64_t last_served_ = 0;  // steps that had run when its last one was over
  int64_t computed_ = 0;      // tokens that the client knows to be computed
  // What was appended and not picked, as far as a cut can reach: ascending, one
  // for all that was appended before logits were wanted. Kept if ReadsInputs.
  std::vector<cache::TextRange> inputs_;
  bool input_open_ = false;  // the last one may still become longer
  PendingTokens pending_;
  // The ids of the cached tokens from text position ids_begin_ on: at least
  // those that a cut can leave last, and those that are computed anew.
  std::vector<int32_t> ids_;
  int64_t ids_begin_ = 0;
  size_t forget_at_ = 0;  // length of ids_ at which to look for older ones
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_ENGINE_SEQUENCE_H_
