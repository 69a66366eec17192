// Reads a text under a policy that chooses by attention, and keeps what the
// cache knew at each cut.
#ifndef MILLRACE_TESTS_EXACTNESS_SCORED_STREAM_H_
#define MILLRACE_TESTS_EXACTNESS_SCORED_STREAM_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "tests/testing/model_runner.h"
#include "tests/testing/scored_oracle.h"

namespace millrace::testing {

struct StreamedCut {
  int64_t length = 0;
  ByHead<float> sums;    // before it
  ByHead<int64_t> kept;  // text positions, after it; empty with positions=text
};

struct ScoredStream {
  Rows logits;  // of every row
  std::vector<StreamedCut> cuts;
  int64_t farthest = 0;  // the largest distance within the cache
};

// In chunks of at most `chunk` tokens; what is not an input is written, token
// by token.
ScoredStream ReadScored(ModelRunner& runner, cache::SequenceId id,
                        absl::Span<const int32_t> text,
                        absl::Span<const Input> inputs, int chunk);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_EXACTNESS_SCORED_STREAM_H_
