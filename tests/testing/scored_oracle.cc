#include "tests/testing/scored_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace millrace::testing {
namespace {

using Choice = ScoredDefinition::Choice;
using Numbers = std::vector<double>;

struct Token {
  int64_t position = 0;
  Numbers key, value;  // the key as it is before any rotation
  double sum = 0;
};

// One walk through a text.
class Walk {
 public:
  Walk(const OracleModel& model, const ScoredDefinition& definition,
       std::vector<Input> inputs, int64_t length)
      : model_(model),
        config_(model.config()),
        definition_(definition),
        inputs_(std::move(inputs)),
        turns_(config_.head_dim, config_.rope_base, length),
        lists_(config_.num_layers,
               std::vector<std::vector<Token>>(config_.num_kv_heads)) {}

  std::vector<double> ReadRow(int32_t id) {
    counts_ = RowCounts();
    OracleLogits row = model_.Read(
        {&id, 1}, [&](int layer, const auto& query, auto key, auto value) {
          return Attend(layer, query, key, value);
        });
    ++t_;
    return std::move(row[0]);
  }

  bool CutsNow() const {
    if (definition_.choice != Choice::kSnapkv) {
      return t_ % definition_.stride == 0;
    }
    for (const Input& input : inputs_) {
      if (t_ == input.end) return true;
      if (t_ > input.begin && t_ < input.end) {
        return size() == definition_.budget + definition_.stride;
      }
    }
    return false;
  }

  // Whether something was dropped.
  bool Cut(ScoredCut* cut) {
    const bool drops = size() > definition_.budget;
    if (drops) {
      *cut = {.length = t_,
              .sums = Gather(&Token::sum),
              .kept = {},
              .margin = std::numeric_limits<double>::infinity()};
      for (auto& layer : lists_) CutLayer(layer, cut->margin);
      cut->kept = Gather(&Token::position);
    }
    if (definition_.choice == Choice::kSnapkv) {
      for (auto& layer : lists_) {
        for (auto& list : layer) {
          for (Token& token : list) token.sum = 0;
        }
      }
    }
    return drops;
  }

 private:
  int64_t size() const { return static_cast<int64_t>(lists_[0][0].size()); }

  // Whether what row t_ looks at is counted.
  bool RowCounts() const {
    if (definition_.choice != Choice::kSnapkv) return true;
    for (const Input& input : inputs_) {
      if (t_ < input.begin || t_ >= input.end) continue;
      const int64_t room = definition_.budget + definition_.stride - size();
      const int64_t cut =
          std::min(input.end, t_ + room) - definition_.votes_early;
      return t_ >= cut - definition_.recent && t_ < cut;
    }
    return false;
  }

  template <class T>
  ByHead<T> Gather(T Token::*number) const {
    ByHead<T> all;
    for (const auto& layer : lists_) {
      auto& heads = all.emplace_back();
      for (const auto& list : layer) {
        auto& numbers = heads.emplace_back();
        for (const Token& token : list) numbers.push_back(token.*number);
      }
    }
    return all;
  }

  OracleModel::Values Attend(int layer, const OracleModel::Values& query,
                             const OracleModel::Values& key,
                             const OracleModel::Values& value) {
    const int dim = config_.head_dim;
    OracleModel::Values out{query.rows, 1, Numbers(query.rows)};
    const int group = config_.num_heads / config_.num_kv_heads;
    for (int h = 0; h < config_.num_kv_heads; ++h) {
      std::vector<Token>& list = lists_[layer][h];
      const auto part = [&](const OracleModel::Values& from) {
        return Numbers(from.row(h * dim), from.row(h * dim) + dim);
      };
      list.push_back({.position = t_, .key = part(key), .value = part(value)});
      Round(list.back());
      Numbers attention(list.size());
      for (int i = 0; i < group; ++i) {
        const int64_t at = (int64_t{h} * group + i) * dim;
        const Numbers weights = Weights(query.row(at), list);
        for (size_t j = 0; j < list.size(); ++j) {
          if (i == 0 || !definition_.one_query_head) attention[j] += weights[j];
          for (int d = 0; d < dim; ++d) {
            out.at[at + d] += weights[j] * list[j].value[d];
          }
        }
      }
      Count(attention, list);
    }
    return out;
  }

  // As the cache would.
  void Round(Token& token) const {
    if (!model_.RoundsKv()) return;
    model_.RoundKey(turns_, token.position, token.key);
    model_.RoundVector(token.position, token.value);
  }

  // A query or key where it stands.
  Numbers Turned(const double* from, int64_t place) const {
    Numbers out(from, from + config_.head_dim);
    turns_.Turn(place, 1, out);
    return out;
  }

  int64_t Place(const std::vector<Token>& list, size_t i) const {
    return definition_.text_distances ? list[i].position
                                      : static_cast<int64_t>(i);
  }

  Numbers Weights(const double* query, const std::vector<Token>& list) const {
    const Numbers turned = Turned(query, Place(list, list.size() - 1));
    Numbers weights;
    for (size_t j = 0; j < list.size(); ++j) {
      const Numbers key = Turned(list[j].key.data(), Place(list, j));
      double score = 0;
      for (size_t d = 0; d < key.size(); ++d) score += turned[d] * key[d];
      weights.push_back(score / std::sqrt(config_.head_dim));
    }
    SoftMax(weights);
    return weights;
  }

  void Count(const Numbers& attention, std::vector<Token>& list) const {
    for (size_t j = 0; j < list.size(); ++j) {
      double& sum = list[j].sum;
      switch (definition_.choice) {
        case Choice::kTova:
          sum = attention[j];
          break;
        case Choice::kH2o:
          sum = definition_.decay * sum + attention[j];
          break;
        case Choice::kSnapkv:
          if (counts_) sum += attention[j];
          break;
      }
    }
  }

  void CutLayer(std::vector<std::vector<Token>>& layer, double& margin) const {
    std::vector<Numbers> sums;
    for (const std::vector<Token>& list : layer) {
      Numbers& own = sums.emplace_back();
      for (const Token& token : list) own.push_back(token.sum);
    }
    if (definition_.by_layer || definition_.choice == Choice::kTova) {
      Numbers total(sums[0].size());
      for (const Numbers& own : sums) {
        for (size_t j = 0; j < own.size(); ++j) total[j] += own[j];
      }
      std::fill(sums.begin(), sums.end(), total);
    }
    for (size_t h = 0; h < layer.size(); ++h) {
      DropLeast(Pooled(sums[h]), layer[h], margin);
    }
  }

  // The mean over `pool` neighbours, of which those outside count nothing.
  Numbers Pooled(const Numbers& sums) const {
    const int64_t n = static_cast<int64_t>(sums.size());
    const int64_t reach = definition_.pool / 2;
    Numbers pooled(sums.size());
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t k = j - reach; k <= j + reach; ++k) {
        if (k >= 0 && k < n) pooled[j] += sums[k] / definition_.pool;
      }
    }
    return pooled;
  }

  void DropLeast(const Numbers& numbers, std::vector<Token>& list,
                 double& margin) const {
    // By what they count, then by age: the first ones go.
    std::vector<std::pair<double, size_t>> candidates;
    const size_t end = list.size() - definition_.recent;
    for (size_t j = definition_.kept; j < end; ++j) {
      candidates.emplace_back(numbers[j], j);
    }
    std::sort(candidates.begin(), candidates.end());
    const size_t drop = list.size() - definition_.budget;
    if (drop < candidates.size()) {
      const double stays = candidates[drop].first;
      margin = std::min(margin, (stays - candidates[drop - 1].first) / stays);
    }
    std::vector<bool> gone(list.size());
    for (size_t i = 0; i < drop; ++i) gone[candidates[i].second] = true;
    std::vector<Token> rest;
    for (size_t j = 0; j < list.size(); ++j) {
      if (!gone[j]) rest.push_back(std::move(list[j]));
    }
    list = std::move(rest);
  }

  const OracleModel& model_;
  const backends::ModelConfig& config_;
  const ScoredDefinition& definition_;
  const std::vector<Input> inputs_;
  const Turns turns_;
  int64_t t_ = 0;
  bool counts_ = false;
  std::vector<std::vector<std::vector<Token>>> lists_;  // [layer][KV head]
};

}  // namespace

double ScoredReading::margin() const {
  double smallest = std::numeric_limits<double>::infinity();
  for (const ScoredCut& cut : cuts) smallest = std::min(smallest, cut.margin);
  return smallest;
}

ScoredOracle::ScoredOracle(const backends::ModelFile& file,
                           const ScoredDefinition& definition,
                           const OracleOptions& options)
    : model_(file, options), definition_(definition) {}

ScoredReading ScoredOracle::Read(absl::Span<const int32_t> ids,
                                 std::vector<Input> inputs) const {
  const auto length = static_cast<int64_t>(ids.size());
  if (inputs.empty()) inputs.push_back({0, length});
  Walk walk(model_, definition_, std::move(inputs), length);
  ScoredReading reading;
  for (const int32_t id : ids) {
    ScoredCut cut;
    if (walk.CutsNow() && walk.Cut(&cut)) reading.cuts.push_back(cut);
    reading.logits.push_back(walk.ReadRow(id));
  }
  return reading;
}

}  // namespace millrace::testing
