// The parts of a model that every oracle has in common, in double precision:
// matrix products, norms, feed-forward networks, rotations and soft-max,
// written from the formulas and sharing no code with any backend. What a row
// sees is the oracle's to say.
//
//   OracleModel model(*file);
//   auto logits = model.Read(ids, [&](int layer, auto query, auto key,
//                                     auto value) { return ...; });
#ifndef MILLRACE_TESTS_TESTING_ORACLE_MODEL_H_
#define MILLRACE_TESTS_TESTING_ORACLE_MODEL_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "backends/model_file/model_file.h"

namespace millrace::testing {

struct OracleOptions {
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

// [row][vocabulary_size]
using OracleLogits = std::vector<std::vector<double>>;

// Cosines and sines of distances 0 .. n - 1, of every pair of a head.
struct Turns {
  Turns(int head_dim, double base, int64_t n);

  // Turns a head's vector forwards (1) or back (-1) by a position.
  void Turn(int64_t position, int direction, std::vector<double>& vector) const;

  int pairs;
  std::vector<double> cosines, sines;  // [distance][pair]
};

class OracleModel {
 public:
  // Tokens innermost: [value][token].
  struct Values {
    int64_t rows = 0, tokens = 0;
    std::vector<double> at;
    double* row(int64_t i) { return &at[i * tokens]; }
    const double* row(int64_t i) const { return &at[i * tokens]; }
  };
  // The heads' outputs for the tokens' queries, keys and values, none of them
  // rotated or rounded. Called once for each layer.
  using Attention = std::function<Values(int layer, const Values& query,
                                         Values key, Values value)>;

  // `file` is borrowed.
  OracleModel(const backends::ModelFile& file, const OracleOptions& options)
      : file_(file), options_(options) {}

  // The logits of rows `first` .. last of the tokens.
  OracleLogits Read(absl::Span<const int32_t> ids, const Attention& attention,
                    int64_t first = 0) const;

  // Whether the cache would round keys and values. If so, a value and a turned
  // key of one head as it would store them; and a key that is turned, rounded
  // and turned back.
  bool RoundsKv() const { return options_.kv_bits > 0 || options_.int8_kv; }
  void RoundVector(int64_t token, std::vector<double>& vector) const;
  void RoundKey(const Turns& turns, int64_t token,
                std::vector<double>& key) const;

  const backends::ModelConfig& config() const { return file_.config(); }

 private:
  Values Embed(absl::Span<const int32_t> ids) const;
  Values Product(absl::string_view tensor, Values in) const;
  Values Normalised(absl::string_view tensor, const Values& in) const;
  void AddLayer(int layer, const Attention& attention, Values& residual) const;
  std::vector<float> Row(const backends::TensorView& tensor, int64_t row) const;

  const backends::ModelFile& file_;
  const OracleOptions options_;
};

// Turns scores into weights that add up to 1.
void SoftMax(std::vector<double>& scores);

// The largest difference from a backend's logits.
double MaxDifference(const std::vector<std::vector<float>>& a,
                     const OracleLogits& b);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_ORACLE_MODEL_H_
