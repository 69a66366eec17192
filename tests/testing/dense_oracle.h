// What a model says of a whole text, computed without a cache: one masked dense
// pass in double precision, written from the formulas and sharing no code with
// any backend, policy or cache.
//
//   DenseOracle oracle(*file);
//   auto logits = oracle.Read(ids, SinksVisibility(4, 60));
//
// Visibility is StreamingLLM's (https://arxiv.org/abs/2309.17453), by token:
//
//   visible(t, j)   j <= t and (j < S or j >= t - R)
//   distance(t, j)  t - j for j >= t - R; min(t, S + R) - j for j < S
#ifndef MILLRACE_TESTS_TESTING_DENSE_ORACLE_H_
#define MILLRACE_TESTS_TESTING_DENSE_ORACLE_H_

#include <cstdint>
#include <functional>

#include "absl/types/span.h"
#include "backends/model_file/model_file.h"
#include "tests/testing/oracle_model.h"

namespace millrace::testing {

// At which distance row t sees token j <= t; negative: not at all.
using Visibility = std::function<int64_t(int64_t t, int64_t j)>;

Visibility FullVisibility();
Visibility WindowVisibility(int64_t window);
Visibility SinksVisibility(int64_t sinks, int64_t window);
// The context shift of llama.cpp:
//
//   k(t)            0 if t < C, else 1 + floor((t - C) / D)
//   visible(t, j)   j <= t and (j < F or j >= F + k(t) D)
//   distance(t, j)  t - j, less k(t) D for j < F
struct ShiftDefinition {
  int64_t context = 0, keep = 0, discard = 0;  // C, F, D
  bool keep_distances = false;                 // a control: none is less
};
Visibility ShiftVisibility(const ShiftDefinition& shift);
// A control: sinks at their distance in the text.
Visibility SinksAtTextDistances(int64_t sinks, int64_t window);

class DenseOracle {
 public:
  using Logits = OracleLogits;

  // `file` is borrowed.
  explicit DenseOracle(const backends::ModelFile& file,
                       const OracleOptions& options = {})
      : model_(file, options) {}

  // The logits of rows `first` .. last of the text.
  Logits Read(absl::Span<const int32_t> ids, const Visibility& visibility,
              int64_t first = 0) const;

 private:
  using Values = OracleModel::Values;

  Values Attention(const Values& query, Values key, Values value,
                   const Visibility& visibility) const;

  const OracleModel model_;
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_DENSE_ORACLE_H_
