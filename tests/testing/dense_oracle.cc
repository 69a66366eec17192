#include "tests/testing/dense_oracle.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/functional/function_ref.h"

namespace millrace::testing {
namespace {

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

DenseOracle::Logits DenseOracle::Read(absl::Span<const int32_t> ids,
                                      const Visibility& visibility,
                                      int64_t first) const {
  return model_.Read(
      ids,
      [&](int, const Values& query, Values key, Values value) {
        return Attention(query, std::move(key), std::move(value), visibility);
      },
      first);
}

DenseOracle::Values DenseOracle::Attention(const Values& query, Values key,
                                           Values value,
                                           const Visibility& visibility) const {
  const backends::ModelConfig& config = model_.config();
  const Turns turns(config.head_dim, config.rope_base, query.tokens);
  if (model_.RoundsKv()) {
    ForEachVector(config.head_dim, key.tokens, key.at,
                  [&](int64_t token, std::vector<double>& vector) {
                    model_.RoundKey(turns, token, vector);
                  });
    ForEachVector(config.head_dim, value.tokens, value.at,
                  [&](int64_t token, std::vector<double>& vector) {
                    model_.RoundVector(token, vector);
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

}  // namespace millrace::testing
