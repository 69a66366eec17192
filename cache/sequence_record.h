// SequenceRecord is all that a sequence is beside its blocks: with both, it can
// be put away and go on later, in this manager or in another.
//
//   SequenceRecord record = manager.Record(id);
//   std::vector<KvBlock> from = manager.Blocks(id);  // the caller copies them
//   absl::StatusOr<SequenceId> again = other.Restore(options, record);
//   std::vector<KvBlock> to = other.Blocks(*again);  // as many, in that order
//
// What was only reserved is not part of it. A value: copies stand alone.
#ifndef MILLRACE_CACHE_SEQUENCE_RECORD_H_
#define MILLRACE_CACHE_SEQUENCE_RECORD_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "cache/head_table.h"

namespace millrace::cache {

// Of a policy that chooses by attention: what ScoredSlots keeps.
struct ScoredRecord {
  int64_t length = 0;   // text tokens that are computed
  int64_t dropped = 0;  // of these, in no slot
  int64_t input_end = 0;
  bool cut_due = false;
  // The length at the last cut, or at what would have been one, and the sums as
  // they were there, if they go on.
  int64_t checkpoint = 0;
  HeadTable<int64_t> positions;  // in the text
  HeadTable<float> sums, checkpoint_sums;
  // Where the input begins that a token since the checkpoint was read in, by
  // slot; of a token that was written, one past it.
  std::vector<int64_t> input_begins;
};

struct SequenceRecord {
  int64_t length = 0;      // tokens in the cache or evicted from it; of a
                           // policy that chooses by attention, those held
  int64_t tail_begin = 0;  // the first that is held behind the prefix
  int64_t built_for = 0;   // the row of the last Rebuild
  std::optional<ScoredRecord> scored = std::nullopt;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_SEQUENCE_RECORD_H_
