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
#include "services/engine/pending_tokens.h"
#include "services/engine/scheduler.h"

namespace millrace::engine {

class EngineSequence;

// All sequences of an engine, by id, and what they share.
struct SequenceTable {
  cache::CacheManager cache;
  absl::flat_hash_map<int64_t, EngineSequence*> open;
  uint64_t steps = 0;  // that have run
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
  int64_t computed_tokens() const override;
  int64_t pending_tokens() const override { return pending_.size(); }
  absl::Status Truncate(int64_t length) override;
  int64_t EarliestCut() const override;
  void Clear() override;
  int64_t resident_tokens() const override;
  int64_t peak_resident_tokens() const override;
  int64_t reserved_bytes() const override;

  SequenceFacts Facts() const;
  SequenceClient* client() const { return client_; }

  // Makes room for the first `tokens` pending ones: what their rows read.
  absl::StatusOr<cache::KvView> Reserve(int tokens);
  absl::Span<const int32_t> FirstPending(int tokens) const {
    return pending_.First(tokens);
  }
  // The tokens of the last Reserve are computed.
  void Commit(int tokens);
  void DropPending() { pending_.Clear(); }

  // Rows of which logits are wanted, counted from the last, when the next
  // `tokens` of `pending` have been computed.
  int WantedRows(int tokens, int64_t pending) const;

 private:
  EngineSequence(cache::SequenceId id, const cache::SequenceOptions& options,
                 SequenceClient* client, SequenceTable* table)
      : id_(id), options_(options), client_(client), table_(table) {}

  void Remember(absl::Span<const int32_t> ids);
  void ForgetIds();

  const cache::SequenceId id_;
  const cache::SequenceOptions options_;
  SequenceClient* const client_;
  SequenceTable* const table_;
  Logits wanted_ = Logits::kNone;
  bool paused_ = false;
  uint64_t last_served_ = 0;  // steps that had run when its last one was over
  PendingTokens pending_;
  // The ids of the computed tokens from text position ids_begin_ on: at least
  // those that a cut can leave last.
  std::vector<int32_t> ids_;
  int64_t ids_begin_ = 0;
  size_t forget_at_ = 0;  // length of ids_ at which to look for older ones
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_ENGINE_SEQUENCE_H_
