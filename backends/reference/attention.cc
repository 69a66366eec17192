// Soft-max attention of one row and head over all runs, as it is written down:
// all scores, their largest, the exponentials and their sum, the weighted
// values. Keys of a chunk's view are laid out first so that sixteen scores are
// made side by side.
//
// A key that was turned at another position than the one where it is looked at
// stays as it is: the query turns so much further.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "backends/reference/attention_sums.h"
#include "backends/reference/lanes.h"
#include "backends/reference/ops.h"
#include "backends/reference/parallel.h"
#include "backends/reference/rotations.h"
#include "cache/kv_view.h"

namespace millrace::backends::reference {
namespace {

// Keys and values of one KV head in one run, in text order.
struct HeadOfRun {
  std::vector<Lanes> keys;    // [group of 16 tokens][head_dim], lane = token
  std::vector<Lanes> values;  // [token][head_dim / 16, up], lane = number
};

struct GatheredRun {
  cache::KvRun run;
  std::vector<HeadOfRun> heads;  // [num_kv_heads]
};

int Groups(int64_t n) { return static_cast<int>((n + kLanes - 1) / kLanes); }

class Gatherer {
 public:
  Gatherer(const PlainKvStorage& kv, int layer) : kv_(kv), layer_(layer) {}

  GatheredRun Gather(const cache::KvRun& run) const {
    const cache::KvSpec& spec = kv_.spec();
    GatheredRun out;
    out.run = run;
    out.heads.resize(spec.num_kv_heads);
    for (HeadOfRun& head : out.heads) {
      head.keys.resize(size_t(Groups(run.length)) * spec.head_dim, Lanes{});
      head.values.resize(run.length * Groups(spec.head_dim), Lanes{});
    }
    std::vector<float> row(kv_.row_values());
    for (int64_t i = 0; i < run.length; ++i) GatherToken(i, row, out);
    return out;
  }

 private:
  void GatherToken(int64_t i, std::vector<float>& row, GatheredRun& out) const {
    const int64_t slot = out.run.first_slot + i;
    const cache::KvBlock block = out.run.BlockAt(slot / cache::kBlockTokens);
    const int in_block = static_cast<int>(slot % cache::kBlockTokens);
    const int dim = kv_.spec().head_dim;
    kv_.LoadRow(layer_, KvPart::kKey, block, in_block, absl::MakeSpan(row));
    for (size_t h = 0; h < out.heads.size(); ++h) {
      Lanes* const group = &out.heads[h].keys[i / kLanes * dim];
      for (int d = 0; d < dim; ++d) group[d][i % kLanes] = row[h * dim + d];
    }
    kv_.LoadRow(layer_, KvPart::kValue, block, in_block, absl::MakeSpan(row));
    for (size_t h = 0; h < out.heads.size(); ++h) {
      Lanes* const value = &out.heads[h].values[i * Groups(dim)];
      for (int d = 0; d < dim; ++d) {
        value[d / kLanes][d % kLanes] = row[h * dim + d];
      }
    }
  }

  const PlainKvStorage& kv_;
  const int layer_;
};

// A stretch of visible tokens of a run: tokens begin <= i < end of it.
struct Stretch {
  const HeadOfRun* head;
  int64_t first_position;  // of the run
  int64_t begin, end;
};

Stretch Visible(const GatheredRun& run, int kv_head, int64_t c) {
  const int64_t first = run.run.first_position;
  const int64_t begin = std::max(first, run.run.rule.FirstVisible(c));
  const int64_t end = std::min(run.run.end_position(), c + 1);
  return {&run.heads[kv_head], first, begin - first,
          std::max(begin, end) - first};
}

// By how much the key of token i was turned further than where it is looked at.
class KeyLeads {
 public:
  KeyLeads(const cache::KvView& view, int layer, int kv_head) {
    if (view.key_positions != nullptr) {
      positions_ = view.key_positions->At(layer, kv_head);
    }
  }

  int64_t Of(const Stretch& stretch, int64_t i) const {
    if (positions_.empty()) return 0;
    const int64_t position = stretch.first_position + i;
    return positions_[position] - position;
  }

  // The tokens of the stretch from its begin on that turned equally far.
  Stretch Equal(Stretch stretch) const {
    int64_t i = stretch.begin;
    if (positions_.empty()) return stretch;
    const int64_t lead = Of(stretch, i);
    while (i < stretch.end && Of(stretch, i) == lead) ++i;
    stretch.end = i;
    return stretch;
  }

 private:
  absl::Span<const int64_t> positions_;
};

// Appends query . key for the tokens of the stretch.
void AppendScores(const Stretch& stretch, absl::Span<const float> query,
                  std::vector<float>& scores) {
  const int64_t dim = query.size();
  for (int64_t i = stretch.begin; i < stretch.end;) {
    const Lanes* const group = &stretch.head->keys[i / kLanes * dim];
    Lanes sums = {};
    for (int64_t d = 0; d < dim; ++d) sums += query[d] * group[d];
    const int64_t end = std::min(stretch.end, (i / kLanes + 1) * kLanes);
    for (; i < end; ++i) scores.push_back(sums[i % kLanes]);
  }
}

// Turns scores into weights that add up to 1.
void SoftMax(float scale, std::vector<float>& scores) {
  const float largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (float& score : scores) {
    score = std::exp((score - largest) * scale);
    sum += score;
  }
  for (float& score : scores) score = static_cast<float>(score / sum);
}

// out = sum of weight * value over all stretches, in text order.
void WeightedValues(absl::Span<const Stretch> stretches,
                    absl::Span<const float> weights, absl::Span<float> out) {
  const int groups = Groups(out.size());
  for (int g = 0; g < groups; ++g) {
    Lanes sums = {};
    const float* weight = weights.data();
    for (const Stretch& stretch : stretches) {
      for (int64_t i = stretch.begin; i < stretch.end; ++i) {
        sums += *weight++ * stretch.head->values[i * groups + g];
      }
    }
    const int end = std::min<int>(out.size(), (g + 1) * kLanes);
    for (int d = g * kLanes; d < end; ++d) out[d] = sums[d % kLanes];
  }
}

// Remembers the weights of all stretches by cache position.
void Keep(absl::Span<const Stretch> stretches, absl::Span<const float> weights,
          int row, int head, Probabilities& probabilities) {
  for (const Stretch& stretch : stretches) {
    const size_t n = stretch.end - stretch.begin;
    probabilities.Set(row, head, stretch.first_position + stretch.begin,
                      weights.subspan(0, n));
    weights.remove_prefix(n);
  }
}

}  // namespace

void ReferenceOps::Attention(int layer) {
  int first_row = 0;
  for (const Chunk& chunk : batch_->chunks) {
    AttendChunk(layer, chunk, first_row);
    first_row += chunk.rows();
  }
}

void ReferenceOps::AttendChunk(int layer, const Chunk& chunk, int first_row) {
  const int dim = config_.head_dim;
  const int heads_per_kv_head = config_.num_heads / config_.num_kv_heads;
  const float scale = 1 / std::sqrt(static_cast<float>(dim));
  std::vector<GatheredRun> runs;
  for (const cache::KvRun& run : chunk.view->runs) {
    runs.push_back(Gatherer(*kv_, layer).Gather(run));
  }
  const bool is_asked = chunk.view->attention.has_value();
  Probabilities probabilities(
      chunk.rows(), config_.num_heads,
      is_asked ? chunk.view->attention->sums->capacity() : 0);
  Rotations rotations(rope_);
  const auto attend = [&](int head, int r) {
    const int64_t c = rows_[r].cache_position;
    const int kv_head = head / heads_per_kv_head;
    const size_t offset = (size_t(r) * config_.num_heads + head) * dim;
    const KeyLeads leads(*chunk.view, layer, kv_head);
    std::vector<Stretch> stretches;
    std::vector<float> scores;
    for (const GatheredRun& run : runs) {
      stretches.push_back(Visible(run, kv_head, c));
      for (Stretch rest = stretches.back(); rest.begin < rest.end;) {
        const Stretch equal = leads.Equal(rest);
        const Rotation& rotation = rotations.At(run.run.rule.QueryPosition(c) +
                                                leads.Of(equal, equal.begin));
        std::vector<float> query(&query_[offset], &query_[offset + dim]);
        Rotate(rotation.cosines, rotation.sines, absl::MakeSpan(query));
        AppendScores(equal, query, scores);
        rest.begin = equal.end;
      }
    }
    SoftMax(scale, scores);
    WeightedValues(stretches, scores, {&attended_[offset], size_t(dim)});
    if (is_asked) Keep(stretches, scores, r - first_row, head, probabilities);
  };
  Parallel(config_.num_heads * chunk.rows(), num_threads_,
           [&](int begin, int end) {
             for (int i = begin; i < end; ++i) {
               attend(i / chunk.rows(), first_row + i % chunk.rows());
             }
           });
  if (is_asked) AddToSums(layer, probabilities, *chunk.view->attention);
}

}  // namespace millrace::backends::reference
