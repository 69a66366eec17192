// The facts about a sequence that a policy decides on.
#ifndef MILLRACE_CACHE_SEQUENCE_VIEW_H_
#define MILLRACE_CACHE_SEQUENCE_VIEW_H_

#include <cstdint>

#include "absl/types/span.h"
#include "cache/text_range.h"

namespace millrace::cache {

struct SequenceView {
  // Tokens in the cache or evicted from it: the text position of the next one.
  int64_t length = 0;
  // The position that no row to come is below: `length`, or less while tokens
  // are held for a rollback.
  int64_t first_row = 0;
  // What is resident: ascending, disjoint; in positions within the cache if the
  // policy has a scoring(). Borrowed for the call.
  absl::Span<const TextRange> resident = {};
  // See ScoredState; told to policies with a scoring() alone.
  int64_t input_end = 0;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_SEQUENCE_VIEW_H_
