#include "backends/onednn/attention_sums.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cache/head_table.h"
#include "cache/kv_view.h"

namespace millrace::backends::onednn {
namespace {

// Positions that a thread adds up at once.
constexpr int64_t kPiecePositions = 4 * kSegmentTokens;

constexpr float kNothing = -std::numeric_limits<float>::infinity();

}  // namespace

AttentionSums::AttentionSums(const ModelConfig& config, const Kernels& kernels,
                             const Step& step, ThreadPool& pool)
    : config_(config),
      kernels_(kernels),
      step_(step),
      pool_(pool),
      heads_per_kv_head_(config.num_heads / config.num_kv_heads) {}

void AttentionSums::Begin() {
  groups_.clear();
  segments_.clear();
  pieces_.clear();
}

int AttentionSums::AddGroup(int chunk, int first_row, int rows) {
  const auto& asked = step_.batch().chunks[chunk].view->attention;
  if (!asked) return kNobodyAsks;
  const float* const weights = &asked->row_weights[first_row];
  if (std::all_of(weights, weights + rows, [](float w) { return w == 0; })) {
    return kNobodyAsks;
  }
  const int segments = static_cast<int>(segments_.size());
  groups_.push_back({chunk, first_row, rows, segments, segments, 0});
  return static_cast<int>(groups_.size()) - 1;
}

void AttentionSums::AddSegment(int64_t first_position) {
  segments_.push_back(first_position);
  ++groups_.back().segments_end;
}

void AttentionSums::EndPlan() {
  int64_t records = 0;
  for (Group& group : groups_) {
    group.records = records;
    records += int64_t{group.segments_end - group.segments_begin} *
               queries(group) * config_.num_kv_heads;
  }
  if (records > static_cast<int64_t>(factors_.size())) {
    factors_.resize(records);
    kept_.resize(records * kSegmentTokens);
  }
  const auto& chunks = step_.batch().chunks;
  int group = 0;
  for (int c = 0; c < static_cast<int>(chunks.size()); ++c) {
    const int first = group;
    const int all = static_cast<int>(groups_.size());
    while (group < all && groups_[group].chunk == c) ++group;
    const auto& asked = chunks[c].view->attention;
    if (!asked || (first == group && asked->decay == 1)) continue;
    const int64_t capacity = asked->sums->capacity();
    for (int64_t begin = 0; begin < capacity; begin += kPiecePositions) {
      pieces_.push_back({c, first, group, begin,
                         std::min(begin + kPiecePositions, capacity)});
    }
  }
}

int64_t AttentionSums::Record(const Group& group, int kv_head,
                              int segment) const {
  const int n = group.segments_end - group.segments_begin;
  return group.records + (int64_t{kv_head} * n + segment) * queries(group);
}

void AttentionSums::Keep(int group, int kv_head, int segment,
                         const float* probabilities, const float* largest) {
  const Group& at = groups_[group];
  const int64_t record = Record(at, kv_head, segment);
  std::copy_n(probabilities, queries(at) * kSegmentTokens,
              &kept_[record * kSegmentTokens]);
  std::copy_n(largest, queries(at), &factors_[record]);
}

void AttentionSums::Finish(int group, int kv_head, const float* largest,
                           const float* sums) {
  const Group& at = groups_[group];
  const int n = queries(at);
  float* factor = &factors_[Record(at, kv_head, 0)];
  for (int s = at.segments_begin; s < at.segments_end; ++s) {
    for (int i = 0; i < n; ++i, ++factor) {
      *factor =
          *factor == kNothing ? 0 : std::exp(*factor - largest[i]) / sums[i];
    }
  }
}

void AttentionSums::AddUp(int layer) {
  if (pieces_.empty()) return;
  const int pieces = static_cast<int>(pieces_.size());
  pool_.Run(pieces * config_.num_kv_heads, 1, [&](int begin, int, int) {
    AddPiece(layer, pieces_[begin % pieces], begin / pieces);
  });
}

void AttentionSums::AddPiece(int layer, const Piece& piece, int kv_head) const {
  const cache::AttentionSums& asked =
      *step_.batch().chunks[piece.chunk].view->attention;
  float* const sums = asked.sums->At(layer, kv_head).data() + piece.begin;
  const int64_t n = piece.end - piece.begin;
  int group = piece.groups_begin;
  for (int row = 0; row < static_cast<int>(asked.row_weights.size()); ++row) {
    if (asked.decay != 1) {
      for (int64_t i = 0; i < n; ++i) sums[i] *= asked.decay;
    }
    const float weight = asked.row_weights[row];
    if (weight == 0) continue;
    while (row >= groups_[group].first_row + groups_[group].rows) ++group;
    AddRow(groups_[group], row - groups_[group].first_row, weight, piece,
           kv_head, sums);
  }
}

// Segments of different runs may cover the same positions: what a run does not
// have is 0 in its segment.
void AttentionSums::AddRow(const Group& group, int row, float weight,
                           const Piece& piece, int kv_head, float* sums) const {
  for (int s = group.segments_begin; s < group.segments_end; ++s) {
    const int64_t first = segments_[s];
    const int64_t begin = std::max(first, piece.begin);
    const int64_t end = std::min(first + kSegmentTokens, piece.end);
    if (begin >= end) continue;
    const int64_t record = Record(group, kv_head, s - group.segments_begin) +
                           row * heads_per_kv_head_;
    kernels_.add_probabilities(&kept_[record * kSegmentTokens + begin - first],
                               &factors_[record], heads_per_kv_head_, weight,
                               static_cast<int>(end - begin),
                               sums + (begin - piece.begin));
  }
}

}  // namespace millrace::backends::onednn
