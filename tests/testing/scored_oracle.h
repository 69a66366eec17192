// What a model says of a text of which each layer, or each KV head, keeps the
// tokens that got most attention: one token after the other, in double
// precision, with a plain list of the kept tokens for each head. Written from
// the definitions, sharing no code with policies, cache or backends.
//
//   ScoredOracle oracle(*file, {.choice = ScoredDefinition::Choice::kTova,
//                               .budget = 32, .stride = 7, .kept = 4});
//   ScoredReading reading = oracle.Read(ids);
//
// Row t sees what is in its head's list, itself at the end. Token i of a list
// of n is at distance n - 1 - i. What is counted, for each token of each list:
//
//   tova     the probabilities of row t, of the row before a cut alone
//   h2o      A_j <- decay A_j + those of row t; a new token starts at its own
//   snapkv   those of the last `recent` rows that an input has before a cut,
//            and after the last one; then the mean over `pool` neighbours
//
// each summed over the query heads that share the list. A cut is made after row
// t where (t + 1) mod stride = 0; under snapkv where an input ends and, within
// one, where budget + stride tokens are in the list. If it has more than
// `budget`, the first `kept` and the last `recent` stay, and of the others
// those that count most; of equals the younger.
#ifndef MILLRACE_TESTS_TESTING_SCORED_ORACLE_H_
#define MILLRACE_TESTS_TESTING_SCORED_ORACLE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backends/model_file/model_file.h"
#include "tests/testing/oracle_model.h"

namespace millrace::testing {

struct ScoredDefinition {
  enum class Choice { kTova, kH2o, kSnapkv };

  Choice choice = Choice::kTova;
  int64_t budget = 32, stride = 1, kept = 4, recent = 1;
  bool by_layer = false;  // one list for the layer's heads; tova: always
  double decay = 1;       // h2o
  int64_t pool = 1;       // snapkv; odd
  bool text_distances = false;

  // ---- Controls: wrong in one thing ----
  bool one_query_head = false;  // of those that share a list: the others' not
  int64_t votes_early = 0;      // rows by which those that vote come too soon
};

// [layer][KV head][token]
template <class T>
using ByHead = std::vector<std::vector<std::vector<T>>>;

// A cut at which something was dropped.
struct ScoredCut {
  int64_t length = 0;    // of the text
  ByHead<double> sums;   // of the query heads of one KV head, before it
  ByHead<int64_t> kept;  // text positions
  // The least that a token which stayed counts, less the most that one counts
  // which did not, as a part of the former: the smallest of all lists. Where
  // numbers are off by less than half of it, the same tokens stay.
  double margin = 0;
};

struct ScoredReading {
  OracleLogits logits;          // of every row
  std::vector<ScoredCut> cuts;  // those before the last row
  double margin() const;        // the smallest
};

// Text positions [begin, end) that are read at once; others are written.
struct Input {
  int64_t begin = 0, end = 0;
};

class ScoredOracle {
 public:
  // `file` is borrowed.
  ScoredOracle(const backends::ModelFile& file,
               const ScoredDefinition& definition,
               const OracleOptions& options = {});

  // `inputs` in ascending order; empty: the text is one.
  ScoredReading Read(absl::Span<const int32_t> ids,
                     std::vector<Input> inputs = {}) const;

 private:
  const OracleModel model_;
  const ScoredDefinition definition_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_SCORED_ORACLE_H_
