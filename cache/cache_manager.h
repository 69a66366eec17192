// CacheManager carries out what policies decide: it owns the block numbers of
// one KvStorage and the block table of every sequence.
//
//   CacheManager manager(spec, num_blocks);
//   auto id = manager.Open({.policy = policy, .max_chunk_tokens = 64});
//   auto view = manager.Reserve(*id, 3);  // evicts, finds slots for 3 tokens
//   ... the backend writes their K/V through the view ...
//   manager.Commit(*id);                  // now they are part of the sequence
//   manager.Truncate(*id, 1);             // an exact rollback, or an error
//   manager.Close(*id);                   // all blocks back to the pool
//
// Admission comes first: Open reserves the most blocks that the sequence can
// ever hold, so Reserve never fails for want of memory. A policy that holds
// more than it promised ends the process: the blocks would be another's.
//
// A token is held `rollback_tokens` longer than some row to come sees it: a
// sequence can be cut back that far, exactly, whatever was evicted.
//
// Not thread-safe: owned by the engine thread.
#ifndef MILLRACE_CACHE_CACHE_MANAGER_H_
#define MILLRACE_CACHE_CACHE_MANAGER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache/block_allocator.h"
#include "cache/block_table.h"
#include "cache/cache_policy.h"
#include "cache/kv_spec.h"
#include "cache/kv_storage.h"
#include "cache/kv_view.h"
#include "cache/sequence_record.h"
#include "cache/text_range.h"

namespace millrace::cache {

using SequenceId = int64_t;

struct SequenceOptions {
  std::shared_ptr<const CachePolicy> policy;  // not null
  // The most tokens that any Reserve asks for; at least 1.
  int64_t max_chunk_tokens = 64;
  // Tokens that can be cut off again after they have pushed others out; 0 or
  // more. Each costs the memory of a token.
  int64_t rollback_tokens = 0;
};

// The blocks that a sequence with these options may hold at most, in a storage
// of that dtype.
int64_t MaxBlocks(const SequenceOptions& options, KvDtype dtype);

class CacheManager {
 public:
  struct Stats {
    int64_t num_blocks = 0;       // of the storage
    int64_t reserved_blocks = 0;  // promised to open sequences
    int64_t used_blocks = 0;      // in some block table now
    int64_t sequences = 0;
    int64_t evicted_tokens = 0;  // since the start, all sequences
  };

  // `storage`, borrowed, is what slots are moved in when a policy that chooses
  // by attention drops some of them; null: no sequence has such a policy.
  CacheManager(const KvSpec& spec, int32_t num_blocks,
               KvStorage* storage = nullptr);
  ~CacheManager();
  CacheManager(const CacheManager&) = delete;
  CacheManager& operator=(const CacheManager&) = delete;

  // Opens an empty sequence and reserves its memory. RESOURCE_EXHAUSTED, with
  // the bytes asked for and free, if the promise cannot be made.
  absl::StatusOr<SequenceId> Open(const SequenceOptions& options);

  // Makes the sequence ready for `row`, which is not below Length: where the
  // policy recomputes, and that row sees other tokens than those that the cache
  // was filled for, drops all behind the protected prefix. Returns Length: if
  // it has changed, go on with the token there, be it one that was committed
  // before or one that is skipped to. Call it before each Reserve.
  int64_t Rebuild(SequenceId id, int64_t row);

  // The text length at which the input that is being read ends; kUnlimited if
  // that is not known yet, at or below Length if what comes is decoded. Heeded
  // by policies that choose by attention, until the next call.
  void SetInputEnd(SequenceId id, int64_t input_end);

  // Makes room for `num_new` tokens after the sequence's last and returns what
  // their rows read; the view's last run holds the slots to write. Evicts first
  // as the policy says. FAILED_PRECONDITION from the policy changes nothing.
  // A second Reserve without Commit replaces the first. What is evicted stays
  // so without a Commit, which costs the cuts `num_new` tokens of their reach.
  // REQUIRES: 1 <= num_new <= MaxChunk(id).
  absl::StatusOr<KvView> Reserve(SequenceId id, int64_t num_new);

  // The most tokens that the next Reserve may ask for: max_chunk_tokens, or
  // fewer where the policy's rules change.
  int64_t MaxChunk(SequenceId id) const;

  // The tokens of the last Reserve are now part of the sequence.
  void Commit(SequenceId id);

  // Its first `count` tokens are; the others can still be committed, one after
  // the other, until the next Reserve, Truncate, Clear or Drop. So tokens that
  // were guessed, and computed along with one that is certain, become part of
  // the sequence as they prove right, and the rest leaves nothing behind.
  // REQUIRES: 0 <= count <= Reserved(id); all of them, if the policy chooses by
  // attention.
  void CommitFirst(SequenceId id, int64_t count);
  // Tokens of the last Reserve that are neither committed nor given up.
  int64_t Reserved(SequenceId id) const;
  // Gives them up.
  void Drop(SequenceId id);

  // Cuts the sequence back to `length` tokens. Exact: everything that the last
  // row kept and the next row see is still resident, or will be recomputed.
  // Else OUT_OF_RANGE and no change. Drops a Reserve without Commit. Where sums
  // of attention have to forget rows, Length() may be less than `length`
  // afterwards: the tokens between are to be appended once more.
  absl::Status Truncate(SequenceId id, int64_t length);

  // The input that is being read ends at `input_end`, Length or beyond, sooner
  // than was said: Truncate for what is not in the cache yet. Length() may be
  // less afterwards, as there.
  void ShortenInput(SequenceId id, int64_t input_end);

  // The shortest length that Truncate takes; every length from there to
  // Length() works, Length() itself always. 0 until something is evicted.
  // From then on a cut into the protected prefix is refused: see Clear.
  int64_t EarliestCut(SequenceId id) const;

  // Forgets all tokens and starts again at text position 0; the reservation
  // stays.
  void Clear(SequenceId id);

  // Returns all blocks and the reservation.
  void Close(SequenceId id);

  // What the sequence is beside its blocks, and these, in an order that is the
  // same after Restore.
  SequenceRecord Record(SequenceId id) const;
  std::vector<KvBlock> Blocks(SequenceId id) const;

  // Opens a sequence that goes on as the recorded one once the caller has
  // copied its blocks (KvStorage::ReadBlocks, WriteBlocks). Fails as Open does.
  // REQUIRES: options equal to those of the record; a KvSpec of equal shape and
  // dtype.
  absl::StatusOr<SequenceId> Restore(const SequenceOptions& options,
                                     const SequenceRecord& record);

  int64_t Length(SequenceId id) const;          // tokens committed
  int64_t ResidentTokens(SequenceId id) const;  // physically held
  int64_t PeakResidentTokens(SequenceId id) const;
  // By text position; what any head holds, if each chooses for itself.
  std::vector<TextRange> Resident(SequenceId id) const;
  // The view of rows at Length() - 1 and before, for reading alone.
  KvView View(SequenceId id) const;

  const KvSpec& spec() const { return spec_; }
  Stats stats() const;

 private:
  struct Sequence;

  Sequence& Get(SequenceId id);
  const Sequence& Get(SequenceId id) const;
  absl::Status Evict(Sequence& sequence, int64_t num_new);
  void CutBack(Sequence& sequence, int64_t length);
  void CutScored(Sequence& sequence);

  const KvSpec spec_;
  KvStorage* const storage_;
  BlockAllocator allocator_;
  int64_t reserved_blocks_ = 0;
  int64_t evicted_tokens_ = 0;
  SequenceId next_id_ = 1;
  absl::flat_hash_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_CACHE_MANAGER_H_
