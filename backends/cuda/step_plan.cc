#include "backends/cuda/step_plan.h"

#include <algorithm>
#include <cstring>

#include "absl/algorithm/container.h"
#include "backends/cuda/kernels/kernels.h"
#include "cache/head_table.h"

namespace millrace::backends::cuda {
namespace {

constexpr size_t kAlignment = 16;  // of the arrays that the header names

// The next power of two, or `most` if that is less. 0 stays 0.
int RoundUp(size_t n, int most) {
  if (n == 0) return 0;
  int power = 1;
  while (power < static_cast<int>(n)) power *= 2;
  return std::min(power, most);
}

// A thread block on tensor cores stands for so many on float units, which can
// divide a chunk's positions among them as well: mma.sync has 8 times their
// rate on an H100 at the least (half of 990 TFLOP/s against 67).
constexpr int kTensorSpeed = 8;

// Whether a chunk's attention is to be added up, and does not just stay.
bool Asks(const Chunk& chunk) {
  const auto& asked = chunk.view->attention;
  return asked && (asked->decay != 1 ||
                   absl::c_any_of(asked->row_weights,
                                  [](float weight) { return weight != 0; }));
}

// One past the last position that the chunk's rows may see.
int64_t EndOf(const Chunk& chunk) {
  int64_t end = 0;
  for (const cache::KvRun& run : chunk.view->runs) {
    end = std::max(end, run.end_position());
  }
  return end;
}

// What AddTables and AddSums add to the image.
int64_t TableBytes(const Chunk& chunk, const StepPlanOptions& options) {
  int64_t bytes = 0;
  if (chunk.view->key_positions != nullptr) {
    bytes += EndOf(chunk) * int64_t{sizeof(int64_t)};
  }
  if (Asks(chunk)) {
    bytes += chunk.view->attention->sums->capacity() * int64_t{sizeof(float)};
  }
  return bytes * options.num_layers * options.num_kv_heads;
}

}  // namespace

std::vector<Batch> InPieces(const Batch& batch, const StepPlanOptions& options,
                            int64_t most) {
  std::vector<Batch> pieces(1);
  int64_t bytes = 0;
  for (const Chunk& chunk : batch.chunks) {
    const int64_t of_chunk = TableBytes(chunk, options);
    const bool fits = of_chunk == 0 || bytes + of_chunk <= most;
    if (!fits && !pieces.back().chunks.empty()) {
      pieces.emplace_back();
      bytes = 0;
    }
    bytes += of_chunk;
    pieces.back().chunks.push_back(chunk);
  }
  return pieces;
}

void StepPlan::Begin(const Batch& batch, cache::KvDtype dtype) {
  batch_ = batch;
  dtype_ = dtype;
  image_.assign(sizeof(StepHeader), 0);
  rows_.clear();
  groups_.clear();
  decode_groups_.clear();
  tensor_groups_.clear();
  chunks_.clear();
  runs_.clear();
  tables_.clear();
  logits_rows_.clear();
  picked_rows_.clear();
  picks_.clear();
  adjustments_.clear();
  for (const Chunk& chunk : batch.chunks) {
    const auto first_row = static_cast<int>(rows_.size());
    StepChunk out = {};
    out.first_row = first_row;
    out.rows = chunk.rows();
    out.runs_begin = static_cast<int>(runs_.size());
    out.decay = 1;
    AddRows(chunk);
    AddGroups(chunk, first_row);
    AddRuns(chunk);
    out.runs_end = static_cast<int>(runs_.size());
    AddTables(chunk, out);
    chunks_.push_back(out);
  }
  // Sums of all chunks come one after the other, so that they are read at once.
  sums_begin_ = static_cast<int64_t>(image_.size());
  for (size_t i = 0; i < chunks_.size(); ++i) {
    AddSums(batch.chunks[i], chunks_[i]);
  }
  sums_end_ = static_cast<int64_t>(image_.size());
  WriteHeader();
  ChooseShape();
}

void StepPlan::AddRows(const Chunk& chunk) {
  for (int i = 0; i < chunk.rows(); ++i) {
    const int64_t t = chunk.first_position + i;
    const int64_t c = t - chunk.view->row_offset;
    const cache::KvView::Slot slot = chunk.view->Find(c);
    if (const int wanted = i - (chunk.rows() - chunk.num_logits); wanted >= 0) {
      const auto row = static_cast<int32_t>(rows_.size());
      if (chunk.sampling.empty()) {
        logits_rows_.push_back(row);
      } else {
        AddPick(chunk.sampling[wanted], chunk.picked_before, row);
      }
    }
    rows_.push_back({.text_position = t,
                     .cache_position = c,
                     .token_id = chunk.picked_before < 0
                                     ? chunk.token_ids[i]
                                     : -1 - chunk.picked_before,
                     .block = slot.block,
                     .value_block = slot.value_block,
                     .slot = slot.slot});
  }
}

void StepPlan::AddPick(const RowSampling& sampling, int picked_before,
                       int row) {
  const auto begin = static_cast<int32_t>(adjustments_.size());
  adjustments_.insert(adjustments_.end(), sampling.adjustments.begin(),
                      sampling.adjustments.end());
  picked_rows_.push_back(row);
  picks_.push_back(
      {.uniform = sampling.uniform,
       .logits_row = 0,  // until all rows are known
       .adjustments_begin = begin,
       .adjustments_end = static_cast<int32_t>(adjustments_.size()),
       .top_k = sampling.top_k,
       .temperature = sampling.temperature,
       .top_p = sampling.top_p,
       .min_p = sampling.min_p,
       .of_unknown = sampling.of_unknown,
       .picked_before = picked_before,
       .unused = 0});
}

// By what the chunk itself is, so that its company decides nothing.
StepPlan::Units StepPlan::UnitsFor(const Chunk& chunk) const {
  if (Asks(chunk) || chunk.view->key_positions != nullptr) {
    return Units::kFloat;
  }
  if (chunk.rows() < kTensorRows) {
    return options_.decode_group_rows > 0 && IsDecodeDtype(dtype_)
               ? Units::kDecode
               : Units::kFloat;
  }
  const int group_rows = options_.tensor_group_rows;
  if (group_rows == 0) return Units::kFloat;
  const int blocks = (chunk.rows() + group_rows - 1) / group_rows;
  const bool pays =
      blocks * options_.num_kv_heads * kTensorSpeed >= options_.wanted_blocks;
  return pays ? Units::kTensor : Units::kFloat;
}

void StepPlan::AddGroups(const Chunk& chunk, int first_row) {
  const int rows = chunk.rows();
  switch (UnitsFor(chunk)) {
    case Units::kFloat:
      return AddGroups(rows, first_row, options_.group_rows, groups_);
    case Units::kDecode:
      return AddGroups(rows, first_row, options_.decode_group_rows,
                       decode_groups_);
    case Units::kTensor:
      return AddGroups(rows, first_row, options_.tensor_group_rows,
                       tensor_groups_);
  }
}

void StepPlan::AddGroups(int rows, int first_row, int most,
                         std::vector<StepGroup>& groups) const {
  for (int i = 0; i < rows; i += most) {
    groups.push_back({.chunk = static_cast<int>(chunks_.size()),
                      .first_row = first_row + i,
                      .rows = std::min(most, rows - i),
                      .unused = 0});
  }
}

void StepPlan::AddRuns(const Chunk& chunk) {
  for (const cache::KvRun& run : chunk.view->runs) {
    const auto add = [&](absl::Span<const int32_t> blocks) {
      const auto first = static_cast<int32_t>(tables_.size());
      tables_.insert(tables_.end(), blocks.begin(), blocks.end());
      return first;
    };
    runs_.push_back({.begin = run.rule.begin,
                     .window = run.rule.window,
                     .query_cap = run.rule.query_cap,
                     .shift = run.rule.shift,
                     .first_position = run.first_position,
                     .length = run.length,
                     .first_slot = run.first_slot,
                     .blocks = add(run.blocks),
                     .value_blocks = run.wide() ? add(run.value_blocks) : -1,
                     .unused = 0});
  }
}

// Where keys were turned, up to the last position that there is.
void StepPlan::AddTables(const Chunk& chunk, StepChunk& out) {
  const cache::HeadTable<int64_t>* const table = chunk.view->key_positions;
  if (table == nullptr) return;
  const int64_t end = EndOf(chunk);
  out.key_positions_capacity = end;
  for (int layer = 0; layer < options_.num_layers; ++layer) {
    for (int head = 0; head < options_.num_kv_heads; ++head) {
      const int64_t at = Append(table->At(layer, head).first(end));
      if (layer == 0 && head == 0) out.key_positions = at;
    }
  }
}

void StepPlan::AddSums(const Chunk& chunk, StepChunk& out) {
  if (!Asks(chunk)) return;
  const cache::AttentionSums& asked = *chunk.view->attention;
  const cache::HeadTable<float>& sums = *asked.sums;
  out.decay = asked.decay;
  out.sums_capacity = sums.capacity();
  for (int layer = 0; layer < options_.num_layers; ++layer) {
    for (int head = 0; head < options_.num_kv_heads; ++head) {
      const int64_t at = Append(sums.At(layer, head));
      if (layer == 0 && head == 0) out.sums = at;
    }
  }
  out.row_weights = Append(absl::MakeConstSpan(asked.row_weights));
}

// Appends an array and returns its offset. Arrays of one type that follow one
// another have no gaps between them.
template <class T>
int64_t StepPlan::Append(absl::Span<const T> values) {
  image_.resize((image_.size() + sizeof(T) - 1) / sizeof(T) * sizeof(T));
  const size_t at = image_.size();
  image_.resize(at + values.size() * sizeof(T));
  if (!values.empty()) {
    std::memcpy(&image_[at], values.data(), values.size() * sizeof(T));
  }
  return static_cast<int64_t>(at);
}

void StepPlan::WriteHeader() {
  const auto append = [&]<class T>(const std::vector<T>& values) {
    image_.resize((image_.size() + kAlignment - 1) / kAlignment * kAlignment);
    return Append(absl::MakeConstSpan(values));
  };
  StepHeader header = {};
  header.num_rows = static_cast<int>(rows_.size());
  header.num_groups = static_cast<int>(groups_.size());
  header.num_chunks = static_cast<int>(chunks_.size());
  for (size_t i = 0; i < picks_.size(); ++i) {
    picks_[i].logits_row = static_cast<int32_t>(logits_rows_.size());
    logits_rows_.push_back(picked_rows_[i]);
  }
  header.num_logits = static_cast<int>(logits_rows_.size());
  header.num_picks = static_cast<int>(picks_.size());
  header.rows = append(rows_);
  header.num_decode_groups = static_cast<int>(decode_groups_.size());
  header.num_tensor_groups = static_cast<int>(tensor_groups_.size());
  header.groups = append(groups_);
  header.decode_groups = append(decode_groups_);
  header.tensor_groups = append(tensor_groups_);
  header.chunks = append(chunks_);
  header.runs = append(runs_);
  header.tables = append(tables_);
  header.logits_rows = append(logits_rows_);
  header.picks = append(picks_);
  header.adjustments = append(adjustments_);
  std::memcpy(image_.data(), &header, sizeof(header));
}

int StepPlan::SectionsOfGroup(const StepGroup& group) const {
  const StepChunk& chunk = chunks_[group.chunk];
  const int64_t first = rows_[group.first_row].cache_position;
  int64_t sections = 0;
  for (int r = chunk.runs_begin; r < chunk.runs_end; ++r) {
    const SectionRange range =
        SectionsOf(runs_[r], first, first + group.rows - 1);
    sections += range.end - range.begin;
  }
  return static_cast<int>(sections);
}

// Of any of the groups, rounded up to few values, each at most a third more
// than what it stands for: a block that finds nothing to do still costs its
// start.
int StepPlan::MostSections(const std::vector<StepGroup>& groups) const {
  int most = 0;
  for (const StepGroup& group : groups) {
    most = std::max(most, SectionsOfGroup(group));
  }
  int sections = 1;
  while (sections < most) sections += std::max(1, sections / 4);
  return sections;
}

int StepPlan::ChooseSections() const {
  const int64_t blocks = int64_t{shape_.groups} * options_.num_kv_heads;
  if (groups_.empty() || blocks >= options_.wanted_blocks) return 0;
  const int sections = MostSections(groups_);
  return sections * blocks <= options_.max_parts ? sections : 0;
}

int StepPlan::ChooseDecodeBlocks() const {
  if (decode_groups_.empty()) return 0;
  const int64_t blocks = int64_t{shape_.decode_groups} * options_.num_kv_heads;
  if (blocks >= options_.wanted_blocks) return 1;
  const int64_t wanted =
      (MostSections(decode_groups_) + kDecodeSections - 1) / kDecodeSections;
  const int64_t room = std::max<int64_t>(1, options_.max_decode_parts / blocks);
  return static_cast<int>(std::min(wanted, room));
}

void StepPlan::ChooseShape() {
  shape_ = {};
  shape_.rows = RoundUp(rows_.size(), options_.max_rows);
  shape_.groups = RoundUp(groups_.size(), options_.max_rows);
  shape_.decode_groups = RoundUp(decode_groups_.size(), options_.max_rows);
  shape_.tensor_groups = RoundUp(tensor_groups_.size(), options_.max_rows);
  for (const StepGroup& group : groups_) {
    shape_.group_rows =
        std::max(shape_.group_rows, RoundUp(group.rows, options_.group_rows));
  }
  shape_.logits = RoundUp(logits_rows_.size(), options_.max_rows);
  shape_.picks = RoundUp(picks_.size(), options_.max_rows);
  for (const StepChunk& chunk : chunks_) {
    if (chunk.sums == 0) continue;
    shape_.asking_chunks = RoundUp(chunks_.size(), options_.max_rows);
    shape_.asked_positions =
        std::max(shape_.asked_positions, static_cast<int>(chunk.sums_capacity));
  }
  shape_.sections = ChooseSections();
  shape_.decode_blocks = ChooseDecodeBlocks();
}

void StepPlan::KeepPicks(absl::Span<const int32_t> ids) const {
  size_t next = 0;
  for (const Chunk& chunk : batch_.chunks) {
    for (int32_t& picked : chunk.picked) picked = ids[next++];
  }
}

void StepPlan::KeepSums(absl::Span<const uint8_t> sums) const {
  for (size_t i = 0; i < chunks_.size(); ++i) {
    if (chunks_[i].sums == 0) continue;
    cache::HeadTable<float>& table = *batch_.chunks[i].view->attention->sums;
    const uint8_t* from = sums.data() + (chunks_[i].sums - sums_begin_);
    for (int layer = 0; layer < options_.num_layers; ++layer) {
      for (int head = 0; head < options_.num_kv_heads; ++head) {
        const absl::Span<float> to = table.At(layer, head);
        std::memcpy(to.data(), from, to.size() * sizeof(float));
        from += to.size() * sizeof(float);
      }
    }
  }
}

}  // namespace millrace::backends::cuda
