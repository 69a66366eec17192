#include "tests/testing/oracle_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

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

// To the nearest number of so many significant bits, ties to even.
double RoundToBits(double x, int bits) {
  int exponent;
  std::frexp(x, &exponent);  // 2^(exponent - 1) <= |x| < 2^exponent
  return std::ldexp(std::nearbyint(std::ldexp(x, bits - exponent)),
                    exponent - bits);
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

}  // namespace

Turns::Turns(int head_dim, double base, int64_t n) : pairs(head_dim / 2) {
  for (int64_t distance = 0; distance < n; ++distance) {
    for (int i = 0; i < pairs; ++i) {
      const double angle = distance * std::pow(base, -2.0 * i / head_dim);
      cosines.push_back(std::cos(angle));
      sines.push_back(std::sin(angle));
    }
  }
}

void Turns::Turn(int64_t position, int direction,
                 std::vector<double>& vector) const {
  for (int i = 0; i < pairs; ++i) {
    const double c = cosines[position * pairs + i];
    const double s = direction * sines[position * pairs + i];
    const double x = vector[2 * i], y = vector[2 * i + 1];
    vector[2 * i] = x * c - y * s;
    vector[2 * i + 1] = x * s + y * c;
  }
}

void SoftMax(std::vector<double>& scores) {
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - largest);
  for (double& score : scores) score /= sum;
}

OracleLogits OracleModel::Read(absl::Span<const int32_t> ids,
                               const Attention& attention,
                               int64_t first) const {
  Values residual = Embed(ids);
  for (int layer = 0; layer < config().num_layers; ++layer) {
    AddLayer(layer, attention, residual);
  }
  const Values logits =
      Product(config().tied_embedding ? "token_embd" : "output",
              Normalised("output_norm", residual));
  OracleLogits out(ids.size() - first);
  for (size_t t = 0; t < out.size(); ++t) {
    for (int64_t i = 0; i < logits.rows; ++i) {
      out[t].push_back(logits.row(i)[first + t]);
    }
  }
  return out;
}

void OracleModel::AddLayer(int layer, const Attention& attention,
                           Values& residual) const {
  const auto name = [&](absl::string_view part) {
    return absl::StrCat("blk.", layer, ".", part);
  };
  const auto add = [&](const Values& values) {
    for (size_t i = 0; i < values.at.size(); ++i)
      residual.at[i] += values.at[i];
  };
  Values in = Normalised(name("attn_norm"), residual);
  add(Product(name("attn_output"), attention(layer, Product(name("attn_q"), in),
                                             Product(name("attn_k"), in),
                                             Product(name("attn_v"), in))));
  in = Normalised(name("ffn_norm"), residual);
  Values hidden = Product(name("ffn_gate"), in);
  const Values up = Product(name("ffn_up"), in);
  for (size_t i = 0; i < up.at.size(); ++i) {
    hidden.at[i] = Silu(hidden.at[i]) * up.at[i];
  }
  add(Product(name("ffn_down"), std::move(hidden)));
}

OracleModel::Values OracleModel::Embed(absl::Span<const int32_t> ids) const {
  const auto tensor = file_.FindTensor("token_embd.weight").value();
  Values out{tensor.cols, static_cast<int64_t>(ids.size()), {}};
  out.at.resize(out.rows * out.tokens);
  for (int64_t t = 0; t < out.tokens; ++t) {
    const std::vector<float> row = Row(tensor, ids[t]);
    for (int64_t i = 0; i < out.rows; ++i) out.row(i)[t] = row[i];
  }
  return out;
}

OracleModel::Values OracleModel::Product(absl::string_view name,
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

OracleModel::Values OracleModel::Normalised(absl::string_view name,
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

std::vector<float> OracleModel::Row(const backends::TensorView& tensor,
                                    int64_t row) const {
  std::vector<float> values(tensor.cols);
  backends::DequantizeRow(tensor.type, tensor.Row(row), values.data(),
                          tensor.cols);
  return values;
}

void OracleModel::RoundVector(int64_t token,
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

void OracleModel::RoundKey(const Turns& turns, int64_t token,
                           std::vector<double>& key) const {
  turns.Turn(token, 1, key);
  RoundVector(token, key);
  turns.Turn(token, -1, key);
}

double MaxDifference(const std::vector<std::vector<float>>& a,
                     const OracleLogits& b) {
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
