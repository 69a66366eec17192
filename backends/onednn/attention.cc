#include "backends/onednn/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "cache/head_table.h"

namespace millrace::backends::onednn {
namespace {

using cache::kBlockTokens;

constexpr int kGroupTokens = 8;
// Pieces of work that a thread should find, so that ends are even.
constexpr int kUnitsPerThread = 8;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

// Partial results: at most so many floats. Steps that need more are not
// divided; they are long enough.
constexpr int64_t kMaxPartFloats = int64_t{1} << 20;

int64_t PartFloats(int queries, int padded_dim) {
  return int64_t{queries} * (padded_dim + 2);
}

// The part of so many queries that is kept there.
AttentionPart PartAt(float* at, int queries, int padded_dim) {
  float* const max = at + int64_t{queries} * padded_dim;
  return {at, max, max + queries};
}

void Clear(const AttentionPart& part, int queries, int padded_dim) {
  std::fill_n(part.out, int64_t{queries} * padded_dim, 0.0f);
  std::fill_n(part.max, queries, kNothing);
  std::fill_n(part.sum, queries, 0.0f);
}

// The visible part of a run for the row at cache position c: [first, second).
std::pair<int64_t, int64_t> Visible(const cache::KvRun& run, int64_t c) {
  return {std::max(run.rule.FirstVisible(c), run.first_position),
          std::min(c + 1, run.end_position())};
}

// The same, counted from the first position of a segment.
SeenPositions Seen(const cache::KvRun& run, int64_t c, int64_t segment) {
  const auto [begin, end] = Visible(run, c);
  const auto within = [&](int64_t c) {
    return static_cast<int>(
        std::clamp<int64_t>(c - segment, 0, kSegmentTokens));
  };
  return {within(begin), within(end)};
}

}  // namespace

// What a worker has while it computes a group.
struct Attention::Scratch {
  Scratch(int queries, int padded_dim)
      : rebased(kSegmentTokens * padded_dim),
        rotated(queries * padded_dim),
        rounded(queries * padded_dim),
        scales(queries),
        scores(queries * kSegmentTokens),
        seen(queries),
        part(PartFloats(queries, padded_dim)),
        sum(PartFloats(queries, padded_dim)) {}
  static int64_t Bytes(int queries, int padded_dim) {
    return int64_t{4} * queries * (4 * padded_dim + kSegmentTokens + 7) +
           4 * kSegmentTokens * padded_dim + 1024;
  }

  std::vector<float> rebased;  // keys, [tile][padded_dim][16]
  std::vector<float> rotated;  // queries
  std::vector<int16_t> rounded;
  std::vector<float> scales;  // of those
  std::vector<float> scores;
  std::vector<SeenPositions> seen;
  std::vector<float> part, sum;  // of one segment, of all up to it
};

Attention::Attention(const ModelConfig& config, const Kernels& kernels,
                     const Step& step, ThreadPool& pool, int max_rows)
    : config_(config),
      kernels_(kernels),
      step_(step),
      pool_(pool),
      padded_dim_(RoundUp16(config.head_dim)),
      heads_per_kv_head_(config.num_heads / config.num_kv_heads),
      scale_(static_cast<float>(1 / std::sqrt(double{1} * config.head_dim))),
      angle_steps_(padded_dim_ / 2),
      pending_(new std::atomic<int>[max_rows * config.num_kv_heads]),
      sums_(config, kernels, step, pool) {
  absl::c_copy(step.rope().steps(), angle_steps_.begin());
  groups_.reserve(max_rows);
  group_units_.reserve(max_rows);
  for (int worker = 0; worker < pool.num_threads(); ++worker) {
    scratches_.push_back(std::make_unique<Scratch>(
        kGroupTokens * heads_per_kv_head_, padded_dim_));
  }
  parts_.resize(kMaxPartFloats);
}

Attention::~Attention() = default;

int64_t Attention::Bytes(const ModelConfig& config, int num_threads,
                         int max_rows) {
  const int padded_dim = RoundUp16(config.head_dim);
  const int queries = kGroupTokens * (config.num_heads / config.num_kv_heads);
  const int64_t per_row =
      sizeof(Group) + sizeof(int) + sizeof(int) * config.num_kv_heads;
  return max_rows * per_row + 4 * kMaxPartFloats +
         num_threads * Scratch::Bytes(queries, padded_dim);
}

void Attention::Begin() {
  segments_.clear();
  groups_.clear();
  sums_.Begin();
  for (size_t c = 0; c < step_.batch().chunks.size(); ++c) {
    AddGroups(static_cast<int>(c));
  }
  sums_.EndPlan();
  Divide();
}

void Attention::AddGroups(int chunk) {
  const int first = step_.first_row(chunk);
  const int rows = step_.batch().chunks[chunk].rows();
  for (int i = 0; i < rows; i += kGroupTokens) {
    Group group = {
        .chunk = chunk,
        .first_row = first + i,
        .rows = std::min(kGroupTokens, rows - i),
        .segments_begin = static_cast<int>(segments_.size()),
        .segments_end = 0,
        .parts = 0,
        .sums = sums_.AddGroup(chunk, i, std::min(kGroupTokens, rows - i))};
    AddSegments(group);
    group.segments_end = static_cast<int>(segments_.size());
    groups_.push_back(group);
  }
}

void Attention::AddSegments(const Group& group) {
  const auto& runs = step_.batch().chunks[group.chunk].view->runs;
  const int64_t first_row = step_.row(group.first_row).cache_position;
  const int64_t last_row = first_row + group.rows - 1;
  for (size_t r = 0; r < runs.size(); ++r) {
    const cache::KvRun& run = runs[r];
    // What a row sees never begins before what the row before it sees.
    const int64_t begin = Visible(run, first_row).first;
    const int64_t end = Visible(run, last_row).second;
    if (begin >= end) continue;
    // Tiles are counted from that of position 0 if slots followed the
    // positions from there; `offset` is how far they are shifted against that.
    const int64_t offset =
        ((run.first_slot - run.first_position) % kBlockTokens + kBlockTokens) %
        kBlockTokens;
    const int64_t base =
        (run.first_position + offset - run.first_slot) / kBlockTokens;
    const int64_t first_tile = (begin + offset) / kBlockTokens;
    const int64_t last_tile = (end - 1 + offset) / kBlockTokens;
    for (int64_t s = first_tile / kSegmentTiles; s <= last_tile / kSegmentTiles;
         ++s) {
      const int64_t tile = s * kSegmentTiles;
      segments_.push_back({.run = static_cast<int>(r),
                           .first_tile = static_cast<int>(tile - base),
                           .first_position = tile * kBlockTokens - offset,
                           .tiles_begin = static_cast<int>(
                               std::max<int64_t>(0, first_tile - tile)),
                           .tiles_end = static_cast<int>(std::min<int64_t>(
                               kSegmentTiles, last_tile + 1 - tile))});
      if (group.sums != AttentionSums::kNobodyAsks) {
        sums_.AddSegment(segments_.back().first_position);
      }
    }
  }
}

void Attention::Divide() {
  units_.clear();
  const int kv_heads = config_.num_kv_heads;
  const int wanted = kUnitsPerThread * pool_.num_threads();
  if (pool_.num_threads() == 1 ||
      static_cast<int>(groups_.size()) * kv_heads >= wanted) {
    return;
  }
  int64_t floats = 0, segments = 0;
  for (Group& group : groups_) {
    group.parts = floats;
    const int n = group.segments_end - group.segments_begin;
    floats += n * kv_heads * PartFloats(queries(group), padded_dim_);
    segments += n;
  }
  if (floats > kMaxPartFloats) return;
  const int per_unit =
      static_cast<int>(std::max<int64_t>(1, segments * kv_heads / wanted));
  group_units_.assign(groups_.size(), 0);
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (int s = groups_[g].segments_begin; s < groups_[g].segments_end;
         s += per_unit) {
      units_.push_back({static_cast<int>(g), s,
                        std::min(s + per_unit, groups_[g].segments_end)});
      ++group_units_[g];
    }
  }
}

void Attention::Run(int layer, const TiledKvStorage& kv, const float* query,
                    float* attended) {
  Attend({layer, kv, query, attended});
  sums_.AddUp(layer);
}

void Attention::Attend(const Layer& args) {
  const int kv_heads = config_.num_kv_heads;
  // Others claim what is between, as a rule.
  const int stride = pool_.num_threads();
  if (units_.empty()) {
    const int n = static_cast<int>(groups_.size()) * kv_heads;
    pool_.Run(n, 1, [&](int begin, int, int worker) {
      const Place first = FirstOfGroup(begin);
      RunGroup(args, *first.group, first.kv_head, FirstOfGroup(begin + stride),
               *scratches_[worker]);
    });
    return;
  }
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (int head = 0; head < kv_heads; ++head) {
      pending_[g * kv_heads + head].store(group_units_[g],
                                          std::memory_order_relaxed);
    }
  }
  // KV head outermost: a worker reads neighbouring blocks of the same head.
  const int units = static_cast<int>(units_.size());
  pool_.Run(units * kv_heads, 1, [&](int begin, int, int worker) {
    const int head = begin / units;
    const Unit& unit = units_[begin % units];
    const Group& group = groups_[unit.group];
    RunSegments(args, group, head, unit.segments_begin, unit.segments_end,
                FirstOfUnit(begin + stride), nullptr, *scratches_[worker]);
    if (pending_[unit.group * kv_heads + head].fetch_sub(
            1, std::memory_order_acq_rel) == 1) {
      MergeUnits(args, group, head, *scratches_[worker]);
    }
  });
}

// The last rows of a chunk see most: they go first.
Attention::Place Attention::FirstOfGroup(int claim) const {
  const int kv_heads = config_.num_kv_heads;
  const int item = static_cast<int>(groups_.size()) * kv_heads - 1 - claim;
  if (item < 0) return {};
  const Group& group = groups_[item / kv_heads];
  return {&group, item % kv_heads, &segments_[group.segments_begin]};
}

Attention::Place Attention::FirstOfUnit(int claim) const {
  const int units = static_cast<int>(units_.size());
  if (claim >= units * config_.num_kv_heads) return {};
  const Unit& unit = units_[claim % units];
  return {&groups_[unit.group], claim / units, &segments_[unit.segments_begin]};
}

void Attention::PrepareQueries(const Layer& layer, const Group& group,
                               int kv_head, int run, Scratch& scratch) const {
  const int dim = config_.head_dim;
  const bool rounds = layer.kv.kernels(RunOf(group, run).wide()).rounds_queries;
  for (int r = 0, i = 0; r < group.rows; ++r) {
    const int row = group.first_row + r;
    const Angles angles = step_.QueryAngles(row, run);
    for (int h = 0; h < heads_per_kv_head_; ++h, ++i) {
      const int head = kv_head * heads_per_kv_head_ + h;
      float* const rotated = &scratch.rotated[i * padded_dim_];
      kernels_.rotate(layer.query + row * config_.query_size() + head * dim,
                      angles.cosines, angles.sines, scale_, padded_dim_,
                      rotated);
      if (!rounds) continue;
      scratch.scales[i] = kernels_.round_query(
          rotated, padded_dim_, &scratch.rounded[i * padded_dim_]);
    }
  }
}

void Attention::Tiles(const Layer& layer, const Group& group, int kv_head,
                      const Segment& segment, const void** keys,
                      const void** values) const {
  const cache::KvRun& run = RunOf(group, segment.run);
  for (int j = 0; j < kSegmentTiles; ++j) {
    // A tile that no row sees is stood for by one that some row does; its
    // scores are masked.
    const int seen = std::clamp(j, segment.tiles_begin, segment.tiles_end - 1);
    const cache::KvBlock block = run.BlockAt(segment.first_tile + seen);
    keys[j] = layer.kv.Keys(layer.layer, kv_head, block);
    values[j] = layer.kv.Values(layer.layer, kv_head, block);
  }
}

// Turns the keys of the segment's tiles back, if any was turned further than
// where it is looked at, and lets `keys` point to what comes out. Slots that
// are not the run's do not matter: what is left in them differs with the
// chunks.
bool Attention::Rebase(const Layer& layer, const Group& group, int kv_head,
                       const Segment& segment, const void* const* next_keys,
                       const void** keys, Scratch& scratch) const {
  const cache::KvView& view = *step_.batch().chunks[group.chunk].view;
  const cache::HeadTable<int64_t>* const positions = view.key_positions;
  if (positions == nullptr) return false;
  const absl::Span<const int64_t> turned_at =
      positions->At(layer.layer, kv_head);
  const cache::KvRun& run = view.runs[segment.run];
  uint64_t leads[kSegmentTokens] = {}, any = 0;
  const int64_t first = segment.first_position;
  const int64_t end =
      std::min<int64_t>(kSegmentTokens, run.end_position() - first);
  for (int64_t i = std::max<int64_t>(0, run.first_position - first); i < end;
       ++i) {
    leads[i] = static_cast<uint64_t>(turned_at[first + i] - (first + i));
    any |= leads[i];
  }
  if (any == 0) return false;
  const RebaseKeys rebase = layer.kv.kernels(run.wide()).rebase;
  for (int j = segment.tiles_begin; j < segment.tiles_end; ++j) {
    float* const tile = &scratch.rebased[j * kBlockTokens * padded_dim_];
    rebase(keys[j], leads + j * kBlockTokens, angle_steps_.data(), padded_dim_,
           next_keys == nullptr ? nullptr : next_keys[j], tile);
    keys[j] = tile;
  }
  return true;
}

void Attention::RunSegment(const Layer& layer, const Group& group, int kv_head,
                           const Segment& segment, const Place& next,
                           const AttentionPart& part, Scratch& scratch) {
  const void *keys[kSegmentTiles], *values[kSegmentTiles];
  const void* tiles_ahead[2][kSegmentTiles];
  const void *const *next_keys = nullptr, *const *next_values = nullptr;
  Tiles(layer, group, kv_head, segment, keys, values);
  if (next.segment != nullptr) {
    Tiles(layer, *next.group, next.kv_head, *next.segment, tiles_ahead[0],
          tiles_ahead[1]);
    next_keys = tiles_ahead[0];
    next_values = tiles_ahead[1];
  }
  const int n = queries(group);
  const cache::KvRun& run = RunOf(group, segment.run);
  const KvKernels& kernels = layer.kv.kernels(run.wide());
  const bool rebased =
      Rebase(layer, group, kv_head, segment, next_keys, keys, scratch);
  const auto score = rebased ? kernels_.scores_f32 : kernels.scores;
  score({.floats = scratch.rotated.data(),
         .rounded = scratch.rounded.data(),
         .scales = scratch.scales.data(),
         .n = n},
        padded_dim_, keys, segment.tiles_begin, segment.tiles_end,
        rebased ? nullptr : next_keys, scratch.scores.data());
  SeenPositions any = {kSegmentTokens, 0};  // by any query
  for (int i = 0; i < n; ++i) {
    const Step::Row& row = step_.row(group.first_row + i / heads_per_kv_head_);
    const SeenPositions seen =
        Seen(run, row.cache_position, segment.first_position);
    scratch.seen[i] = seen;
    if (seen.first >= seen.last) continue;
    any = {std::min(any.first, seen.first), std::max(any.last, seen.last)};
  }
  kernels_.softmax(scratch.scores.data(), scratch.seen.data(), n, part.max,
                   part.sum);
  kernels.values(scratch.scores.data(), n, padded_dim_, values, any.first,
                 any.last, next_values, part.out);
  if (group.sums != AttentionSums::kNobodyAsks) {
    const auto index = &segment - &segments_[group.segments_begin];
    sums_.Keep(group.sums, kv_head, static_cast<int>(index),
               scratch.scores.data(), part.max);
  }
}

void Attention::RunSegments(const Layer& layer, const Group& group, int kv_head,
                            int begin, int end, const Place& after,
                            const AttentionPart* sum, Scratch& scratch) {
  const int n = queries(group);
  int run = -1;
  for (int s = begin; s < end; ++s) {
    if (segments_[s].run != run) {
      run = segments_[s].run;
      PrepareQueries(layer, group, kv_head, run, scratch);
    }
    const AttentionPart part = sum != nullptr
                                   ? PartAt(scratch.part.data(), n, padded_dim_)
                                   : KeptPart(group, kv_head, s);
    RunSegment(layer, group, kv_head, segments_[s],
               s + 1 == end ? after : Place{&group, kv_head, &segments_[s + 1]},
               part, scratch);
    if (sum != nullptr) kernels_.merge(part, n, padded_dim_, *sum);
  }
}

void Attention::RunGroup(const Layer& layer, const Group& group, int kv_head,
                         const Place& after, Scratch& scratch) {
  const int n = queries(group);
  const AttentionPart sum = PartAt(scratch.sum.data(), n, padded_dim_);
  Clear(sum, n, padded_dim_);
  RunSegments(layer, group, kv_head, group.segments_begin, group.segments_end,
              after, &sum, scratch);
  Finish(layer, group, kv_head, sum);
}

AttentionPart Attention::KeptPart(const Group& group, int kv_head,
                                  int segment) {
  const int64_t segments = group.segments_end - group.segments_begin;
  const int64_t index = kv_head * segments + segment - group.segments_begin;
  const int n = queries(group);
  return PartAt(&parts_[group.parts + index * PartFloats(n, padded_dim_)], n,
                padded_dim_);
}

void Attention::MergeUnits(const Layer& layer, const Group& group, int kv_head,
                           Scratch& scratch) {
  const int n = queries(group);
  const AttentionPart sum = PartAt(scratch.sum.data(), n, padded_dim_);
  Clear(sum, n, padded_dim_);
  for (int s = group.segments_begin; s < group.segments_end; ++s) {
    kernels_.merge(KeptPart(group, kv_head, s), n, padded_dim_, sum);
  }
  Finish(layer, group, kv_head, sum);
}

void Attention::Finish(const Layer& layer, const Group& group, int kv_head,
                       const AttentionPart& sum) {
  const int dim = config_.head_dim;
  for (int i = 0; i < queries(group); ++i) {
    const int row = group.first_row + i / heads_per_kv_head_;
    const int head = kv_head * heads_per_kv_head_ + i % heads_per_kv_head_;
    float* const to = layer.attended + row * config_.query_size() + head * dim;
    const float inverse = 1.0f / sum.sum[i];
    for (int d = 0; d < dim; ++d) {
      to[d] = sum.out[i * padded_dim_ + d] * inverse;
    }
  }
  if (group.sums != AttentionSums::kNobodyAsks) {
    sums_.Finish(group.sums, kv_head, sum.max, sum.sum);
  }
}

}  // namespace millrace::backends::onednn
