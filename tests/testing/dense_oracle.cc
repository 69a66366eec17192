#include "tests/testing/dense_oracle.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "backends/quant/dequantize.h"

namespace millrace::testing {
namespace {

// Rounds each 32 values of each token to multiples of a 127th of the largest.
void RoundToInt8(int64_t tokens, std::vector<double>& at) {
  const int64_t blocks = at.size() / tokens / 32;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t t = 0; t < tokens; ++t) {
      double* const first = &at[b * 32 * tokens + t];
      double largest = 0;
      for (int i = 0; i < 32; ++i) {
        largest = std::max(largest, std::abs(first[i * tokens]));
      }
      if (largest == 0) continue;
      const double step = static_cast<float>(largest) / 127;
      for (int i = 0; i < 32; ++i) {
        first[i * tokens] = step * std::nearbyint(first[i * tokens] / step);
      }
    }
  }
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

// Cosines and sines of distances 0 .. n - 1, of every pair of a head.
struct Turns {
  Turns(int head_dim, double base, int64_t n) : pairs(head_dim / 2) {
    for (int64_t distance = 0; distance < n; ++distance) {
      for (int i = 0; i < pairs; ++i) {
        const double angle = distance * std::pow(base, -2.0 * i / head_dim);
        cosines.push_back(std::cos(angle));
        sines.push_back(std::sin(angle));
      }
    }
  }

  int pairs;
  std::vector<double> cosines, sines;  // [distance][pair]
};

// To the nearest number of so many significant bits, ties to even.
double RoundToBits(double x, int bits) {
  int exponent;
  std::frexp(x, &exponent);  // 2^(exponent - 1) <= |x| < 2^exponent
  return std::ldexp(std::nearbyint(std::ldexp(x, bits - exponent)),
                    exponent - bits);
}

// A vector of a head, its pairs turned forwards (1) or back (-1) by a position.
void Turn(const Turns& turns, int64_t position, int direction,
          std::vector<double>& vector) {
  for (int i = 0; i < turns.pairs; ++i) {
    const double c = turns.cosines[position * turns.pairs + i];
    const double s = direction * turns.sines[position * turns.pairs + i];
    const double x = vector[2 * i], y = vector[2 * i + 1];
    vector[2 * i] = x * c - y * s;
    vector[2 * i + 1] = x * s + y * c;
  }
}

// Calls `change` for the vectors of all heads and tokens of [value][token].
void ForEachVector(
    int head_dim, int64_t tokens, std::vector<double>& at,
    absl::FunctionRef<void(int64_t token, std::vector<double>& vector)>
        change) {
  std::vector<double> vector(head_dim);
  const int64_t heads = at.size() / tokens / head_dim;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t t = 0; t < tokens; ++t) {
      double* const first = &at[head * head_dim * tokens + t];
      for (int d = 0; d < head_dim; ++d) vector[d] = first[d * tokens];
      change(t, vector);
      for (int d = 0; d < head_dim; ++d) first[d * tokens] = vector[d];
    }
  }
}

void SoftMax(std::vector<double>& scores) {
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - largest);
  for (double& score : scores) score /= sum;
}

// One query head and its key and value heads, each [head_dim][token].
struct Head {
  const double* query;
  const double* key;
  const double* value;
  int64_t tokens;
};

// Turns the query of row t by its distance to key j; the key is not turned.
double Score(const Head& in, int64_t t, int64_t j, int64_t distance,
             const Turns& turns) {
  double score = 0;
  for (int i = 0; i < turns.pairs; ++i) {
    const double c = turns.cosines[distance * turns.pairs + i];
    const double s = turns.sines[distance * turns.pairs + i];
    const int64_t even = 2 * i * in.tokens, odd = even + in.tokens;
    const double x = in.query[even + t], y = in.query[odd + t];
    score += (x * c - y * s) * in.key[even + j];
    score += (x * s + y * c) * in.key[odd + j];
  }
  return score / std::sqrt(2 * turns.pairs);
}

void AttendRow(const Head& in, int64_t t, const Turns& turns,
               const Visibility& visibility, double* out) {
  std::vector<int64_t> seen;
  std::vector<double> weights;
  for (int64_t j = 0; j <= t; ++j) {
    const int64_t distance = visibility(t, j);
    if (distance < 0) continue;
    seen.push_back(j);
    weights.push_back(Score(in, t, j, distance, turns));
  }
  SoftMax(weights);
  for (int d = 0; d < 2 * turns.pairs; ++d) {
    for (size_t i = 0; i < seen.size(); ++i) {
      out[d * in.tokens + t] += weights[i] * in.value[d * in.tokens + seen[i]];
    }
  }
}

}  // namespace

Visibility FullVisibility() {
  return [](int64_t t, int64_t j) { return t - j; };
}

Visibility WindowVisibility(int64_t window) {
  return [=](int64_t t, int64_t j) { return j >= t - window ? t - j : -1; };
}

Visibility SinksVisibility(int64_t sinks, int64_t window) {
  return [=](int64_t t, int64_t j) {
    if (j < sinks) return std::min(t, sinks + window) - j;
    return j >= t - window ? t - j : -1;
  };
}

Visibility ShiftVisibility(const ShiftDefinition& shift) {
  return [=](int64_t t, int64_t j) -> int64_t {
    int64_t dropped = 0;
    for (int64_t full = shift.context; full <= t; full += shift.discard) {
      dropped += shift.discard;
    }
    if (j < shift.keep) return t - j - (shift.keep_distances ? 0 : dropped);
    return j >= shift.keep + dropped ? t - j : -1;
  };
}

Visibility SinksAtTextDistances(int64_t sinks, int64_t window) {
  return [=](int64_t t, int64_t j) {
    return j < sinks || j >= t - window ? t - j : -1;
  };
}

DenseOracle::DenseOracle(const backends::ModelFile& file,
                         const DenseOracleOptions& options)
    : file_(file), options_(options) {}

DenseOracle::Logits DenseOracle::Read(absl::Span<const int32_t> ids,
                                      const Visibility& visibility,
                                      int64_t first) const {
  Values residual = Embed(ids);
  for (int layer = 0; layer < file_.config().num_layers; ++layer) {
    AddLayer(layer, visibility, residual);
  }
  const Values logits =
      Product(file_.config().tied_embedding ? "token_embd" : "output",
              Normalised("output_norm", residual));
  Logits out(ids.size() - first);
  for (size_t t = 0; t < out.size(); ++t) {
    for (int64_t i = 0; i < logits.rows; ++i) {
      out[t].push_back(logits.row(i)[first + t]);
    }
  }
  return out;
}

void DenseOracle::AddLayer(int layer, const Visibility& visibility,
                           Values& residual) const {
  const auto name = [&](absl::string_view part) {
    return absl::StrCat("blk.", layer, ".", part);
  };
  const auto add = [&](const Values& values) {
    for (size_t i = 0; i < values.at.size(); ++i)
      residual.at[i] += values.at[i];
  };
  Values in = Normalised(name("attn_norm"), residual);
  add(Product(
      name("attn_output"),
      Attention(Product(name("attn_q"), in), Product(name("attn_k"), in),
                Product(name("attn_v"), in), visibility)));
  in = Normalised(name("ffn_norm"), residual);
  Values hidden = Product(name("ffn_gate"), in);
  const Values up = Product(name("ffn_up"), in);
  for (size_t i = 0; i < up.at.size(); ++i) {
    hidden.at[i] = Silu(hidden.at[i]) * up.at[i];
  }
  add(Product(name("ffn_down"), std::move(hidden)));
}

DenseOracle::Values DenseOracle::Embed(absl::Span<const int32_t> ids) const {
  const auto tensor = file_.FindTensor("token_embd.weight").value();
  Values out{tensor.cols, static_cast<int64_t>(ids.size()), {}};
  out.at.resize(out.rows * out.tokens);
  for (int64_t t = 0; t < out.tokens; ++t) {
    const std::vector<float> row = Row(tensor, ids[t]);
    for (int64_t i = 0; i < out.rows; ++i) out.row(i)[t] = row[i];
  }
  return out;
}

DenseOracle::Values DenseOracle::Product(absl::string_view name,
                                         Values in) const {
  const auto tensor = file_.FindTensor(absl::StrCat(name, ".weight")).value();
  if (options_.int8_activations && backends::BlockElements(tensor.type) > 1) {
    RoundToInt8(in.tokens, in.at);
  }
  Values out{tensor.rows, in.tokens, {}};
  out.at.resize(out.rows * out.tokens);
  for (int64_t o = 0; o < out.rows; ++o) {
    const std::vector<float> weights = Row(tensor, o);
    double* const sums = out.row(o);
    for (int64_t i = 0; i < in.rows; ++i) {
      const double weight = weights[i];
      const double* const values = in.row(i);
      for (int64_t t = 0; t < in.tokens; ++t) sums[t] += weight * values[t];
    }
  }
  return out;
}

DenseOracle::Values DenseOracle::Normalised(absl::string_view name,
                                            const Values& in) const {
  const auto tensor = file_.FindTensor(absl::StrCat(name, ".weight")).value();
  const std::vector<float> weights = Row(tensor, 0);
  Values out = in;
  for (int64_t t = 0; t < in.tokens; ++t) {
    double squares = 0;
    for (int64_t i = 0; i < in.rows; ++i) squares += std::pow(in.row(i)[t], 2);
    const double scale =
        1 / std::sqrt(squares / in.rows + file_.config().rms_epsilon);
    for (int64_t i = 0; i < in.rows; ++i) out.row(i)[t] *= scale * weights[i];
  }
  return out;
}

// As the cache would store it.
void DenseOracle::RoundVector(int64_t token,
                              std::vector<double>& vector) const {
  const bool wide = options_.int8_kv && token < options_.wide_prefix;
  if (!options_.int8_kv || wide) {
    constexpr int kHalfPrecision = 11;
    const int bits = wide ? kHalfPrecision : options_.kv_bits;
    for (double& x : vector) x = RoundToBits(x, bits);
    return;
  }
  double largest = 0;
  for (const double x : vector) largest = std::max(largest, std::abs(x));
  const double step = largest / 127;
  for (double& x : vector) x = step == 0 ? 0 : step * std::nearbyint(x / step);
}

DenseOracle::Values DenseOracle::Attention(const Values& query, Values key,
                                           Values value,
                                           const Visibility& visibility) const {
  const backends::ModelConfig& config = file_.config();
  const Turns turns(config.head_dim, config.rope_base, query.tokens);
  if (options_.kv_bits > 0 || options_.int8_kv) {
    ForEachVector(config.head_dim, key.tokens, key.at,
                  [&](int64_t token, std::vector<double>& vector) {
                    Turn(turns, token, 1, vector);
                    RoundVector(token, vector);
                    Turn(turns, token, -1, vector);
                  });
    ForEachVector(config.head_dim, value.tokens, value.at,
                  [&](int64_t token, std::vector<double>& vector) {
                    RoundVector(token, vector);
                  });
  }
  Values out{query.rows, query.tokens, {}};
  out.at.resize(query.at.size());
  for (int head = 0; head < config.num_heads; ++head) {
    const int kv_head = head / (config.num_heads / config.num_kv_heads);
    const Head in{query.row(head * config.head_dim),
                  key.row(kv_head * config.head_dim),
                  value.row(kv_head * config.head_dim), query.tokens};
    for (int64_t t = 0; t < query.tokens; ++t) {
      AttendRow(in, t, turns, visibility, out.row(head * config.head_dim));
    }
  }
  return out;
}

std::vector<float> DenseOracle::Row(const backends::TensorView& tensor,
                                    int64_t row) const {
  std::vector<float> values(tensor.cols);
  backends::DequantizeRow(tensor.type, tensor.Row(row), values.data(),
                          tensor.cols);
  return values;
}

double MaxDifference(const std::vector<std::vector<float>>& a,
                     const DenseOracle::Logits& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (size_t row = 0; row < a.size(); ++row) {
    for (size_t i = 0; i < a[row].size(); ++i) {
      const double difference = std::abs(a[row][i] - b[row][i]);
      if (!(difference <= largest)) largest = difference;
    }
  }
  return largest;
}

}  // namespace millrace::testing
