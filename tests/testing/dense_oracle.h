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
#include <vector>

#include "absl/types/span.h"
#include "backends/model_file/model_file.h"

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

struct DenseOracleOptions {
  // Rounds the inputs of products with quantised weights to 8 bits, by blocks
  // of 32 with one float scale each, as the CPU backend does.
  bool int8_activations = false;
  // Rounds keys, turned by their text position, and values to so many
  // significant bits, as a cache that stores them so: 8 for bfloat16. 0: never.
  int kv_bits = 0;
  // Rounds each key and each value of a head to multiples of a 127th of its
  // largest number, as a cache of 8-bit numbers; those of tokens below
  // `wide_prefix` to 11 significant bits, as in half precision.
  bool int8_kv = false;
  int64_t wide_prefix = 0;
};

class DenseOracle {
 public:
  // [row][vocabulary_size]
  using Logits = std::vector<std::vector<double>>;

  // `file` is borrowed.
  explicit DenseOracle(const backends::ModelFile& file,
                       const DenseOracleOptions& options = {});

  // The logits of rows `first` .. last of the text.
  Logits Read(absl::Span<const int32_t> ids, const Visibility& visibility,
              int64_t first = 0) const;

 private:
  // Tokens innermost: [value][token].
  struct Values {
    int64_t rows = 0, tokens = 0;
    std::vector<double> at;
    double* row(int64_t i) { return &at[i * tokens]; }
    const double* row(int64_t i) const { return &at[i * tokens]; }
  };

  Values Embed(absl::Span<const int32_t> ids) const;
  Values Product(absl::string_view tensor, Values in) const;
  Values Normalised(absl::string_view tensor, const Values& in) const;
  void RoundVector(int64_t token, std::vector<double>& vector) const;
  Values Attention(const Values& query, Values key, Values value,
                   const Visibility& visibility) const;
  void AddLayer(int layer, const Visibility& visibility,
                Values& residual) const;
  std::vector<float> Row(const backends::TensorView& tensor, int64_t row) const;

  const backends::ModelFile& file_;
  const DenseOracleOptions options_;
};

// The largest difference from a backend's logits.
double MaxDifference(const std::vector<std::vector<float>>& a,
                     const DenseOracle::Logits& b);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_DENSE_ORACLE_H_
