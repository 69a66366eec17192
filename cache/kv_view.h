// How attention reads a sequence: a short list of runs of cached tokens.
#ifndef MILLRACE_CACHE_KV_VIEW_H_
#define MILLRACE_CACHE_KV_VIEW_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "cache/head_table.h"
#include "cache/kv_block.h"
#include "cache/kv_spec.h"

namespace millrace::cache {

inline constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// Which rows see which tokens of a run, and from where they look at them.
//
// A key is rotated once, at its own text position, when it is written. For a
// query row at text position t, a run decides two things:
//
//   visible    key j of the run, if j <= t and j >= t - window
//   distance   QueryPosition(t) - j; the row's query is rotated at
//              QueryPosition(t) for this run, never the key
//
// Sinks + window at S = 4, R = 1020 is two rules: [0, 4) with query_cap 1024,
// and [4, kUnlimited) with window 1020. At t = 5000 the sinks are at distances
// 1024 to 1021 and the window at 1020 to 0: positions within the cache.
struct RunRule {
  int64_t begin = 0;            // first text position that belongs to the run
  int64_t end = kUnlimited;     // one past the last
  int64_t window = kUnlimited;  // rows see back so far; unlimited: to begin
  int64_t query_cap = kUnlimited;  // the query position saturates here
  int64_t shift = 0;               // and is this much lower before it does

  int64_t QueryPosition(int64_t t) const {
    return std::min(t - shift, query_cap);
  }

  // The first position of the run that row t may see, before `end` and t.
  int64_t FirstVisible(int64_t t) const {
    return window > t ? begin : std::max(begin, t - window);
  }

  friend bool operator==(const RunRule&, const RunRule&) = default;
};

// The cached tokens of a run: `length` tokens at consecutive text positions
// from `first_position`, in slots of 16-token blocks.
//
// Token first_position + i is in block blocks[(first_slot + i) / kBlockTokens],
// at slot (first_slot + i) % kBlockTokens. The tokens of a wide run are kept in
// half precision: their keys in `blocks`, their values in `value_blocks`, at
// the same places. A storage's dtype says whether there are such runs.
struct KvRun {
  RunRule rule;
  int64_t first_position = 0;
  int64_t length = 0;
  int first_slot = 0;                // 0 .. kBlockTokens - 1
  absl::Span<const int32_t> blocks;  // numbers of blocks in the KvStorage
  absl::Span<const int32_t> value_blocks = {};  // as many, or none: not wide

  int64_t end_position() const { return first_position + length; }
  bool wide() const { return !value_blocks.empty(); }
  KvBlock BlockAt(int64_t i) const {
    return {blocks[i], wide() ? value_blocks[i] : -1};
  }
};

// How much attention a chunk's rows pay to what is in the cache, for policies
// that choose by it (attention_scoring.h). A backend carries this out for every
// layer and KV head, row by row, in the order of the rows:
//
//   sums[i] = decay * sums[i] + row_weights[r] * sum over the KV head's query
//             heads of the probability that row r gives to cache position i
//
// A row of weight 0 may be left out if decay is 1 or all rows before it are of
// weight 0 and decay is 0.
struct AttentionSums {
  std::vector<float> row_weights;  // [rows of the chunk]
  float decay = 1;
  HeadTable<float>* sums = nullptr;  // borrowed
};

// What the rows of one chunk read: the runs, in ascending text positions. All
// runs of a row enter one soft-max. The tokens of the chunk itself are in the
// runs too: a row sees its own token and those before it in the chunk.
//
// Cheap to copy. The block spans are borrowed from the sequence's block table
// and are valid until the next call of the cache manager on that sequence.
//
// Where each KV head keeps tokens of its own choice, the runs' positions, and
// those that their rules speak of, are positions within the cache. Row t stands
// at t - row_offset there; `key_positions` tells where in the text each key was
// rotated, and attention looks at key i as if that had been at i.
struct KvView {
  std::vector<KvRun> runs;

  // Text positions less positions within the cache, of the chunk's rows.
  int64_t row_offset = 0;
  // The text position at which the key of a cache position is rotated; null: at
  // the position that the runs say. Borrowed.
  const HeadTable<int64_t>* key_positions = nullptr;
  // Empty: nobody asks for it.
  std::optional<AttentionSums> attention = std::nullopt;

  // The slot of a resident position, as the runs count.
  struct Slot {
    int32_t block = -1;
    int slot = 0;
    int32_t value_block = -1;  // of a wide pair

    KvBlock kv_block() const { return {block, value_block}; }
  };
  // REQUIRES: some run holds `position`.
  Slot Find(int64_t position) const;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_KV_VIEW_H_
