// What a step uploads, and how its kernels are launched: plain arithmetic on
// the batch, without a device.
//
//   plan.Begin(batch);
//   device.Copy(memory, plan.image().data(), plan.image().size());
//   ... kernels with plan.shape() ...
//   plan.KeepSums(what the device made of image())
//
// Launch shapes are rounded up, mostly to powers of two, so that few different
// ones occur and a graph that was captured for one serves many steps.
#ifndef MILLRACE_BACKENDS_CUDA_STEP_PLAN_H_
#define MILLRACE_BACKENDS_CUDA_STEP_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backends/batch.h"
#include "backends/cuda/kernels/step_image.h"
#include "cache/kv_spec.h"

namespace millrace::backends::cuda {

// What launches depend on; each an upper bound of what the step has.
struct StepShape {
  int rows = 0;
  int groups = 0;
  int group_rows = 0;
  int decode_groups = 0;
  int tensor_groups = 0;
  // Of groups. 0: each group's sections are taken by one thread block.
  int sections = 0;
  int decode_blocks = 0;  // of each decode group and KV head
  int logits = 0;         // rows, for their own sake or a token's; 0: none
  int picks = 0;
  // Chunks and positions, if sums of attention are asked for.
  int asking_chunks = 0;
  int asked_positions = 0;

  friend auto operator<=>(const StepShape&, const StepShape&) = default;
};

struct StepPlanOptions {
  int num_layers = 0;
  int num_kv_heads = 0;
  int max_rows = 0;
  int group_rows = 8;  // rows that attention takes together, at most
  // The same on tensor cores, of chunks of few rows and of many; 0: they take
  // none.
  int decode_group_rows = 0;
  int tensor_group_rows = 0;
  // Thread blocks that the device should have: below, groups are divided.
  int wanted_blocks = 0;
  // Parts of divided groups that there is memory for: group, section and KV
  // head each.
  int64_t max_parts = 0;
  int64_t max_decode_parts = 0;  // the same of blocks of decode groups
};

// The batch in pieces, in order, none of which has tables of heads (moved keys,
// sums of attention) of more than `most` bytes, but for one that is a single
// chunk. One piece, as a rule.
std::vector<Batch> InPieces(const Batch& batch, const StepPlanOptions& options,
                            int64_t most);

class StepPlan {
 public:
  explicit StepPlan(const StepPlanOptions& options) : options_(options) {}

  const StepPlanOptions& options() const { return options_; }

  // Takes up a batch on a storage of such numbers. What it borrows stays until
  // its picks and sums are kept.
  void Begin(const Batch& batch, cache::KvDtype dtype);

  // What kernels read: kernels/step_image.h. Valid until the next Begin.
  absl::Span<const uint8_t> image() const { return image_; }
  const StepShape& shape() const { return shape_; }

  // Hands the picked tokens over to the chunks that ask. `ids` are those of the
  // image's picks.
  void KeepPicks(absl::Span<const int32_t> ids) const;
  int num_picks() const { return static_cast<int>(picks_.size()); }

  // The sums of attention in the image: bytes begin .. end - 1; none if equal.
  int64_t sums_begin() const { return sums_begin_; }
  int64_t sums_end() const { return sums_end_; }
  // Hands the sums over to the views that ask, once they are computed.
  // `sums` are those bytes.
  void KeepSums(absl::Span<const uint8_t> sums) const;

 private:
  void AddRows(const Chunk& chunk);
  enum class Units { kFloat, kDecode, kTensor };  // that attention runs on
  Units UnitsFor(const Chunk& chunk) const;
  void AddGroups(const Chunk& chunk, int first_row);
  void AddGroups(int rows, int first_row, int most,
                 std::vector<StepGroup>& groups) const;
  void AddRuns(const Chunk& chunk);
  void AddPick(const RowSampling& sampling, int picked_before, int row);
  void AddTables(const Chunk& chunk, StepChunk& out);
  void AddSums(const Chunk& chunk, StepChunk& out);
  int SectionsOfGroup(const StepGroup& group) const;
  int MostSections(const std::vector<StepGroup>& groups) const;
  int ChooseSections() const;
  int ChooseDecodeBlocks() const;
  void WriteHeader();
  void ChooseShape();

  template <class T>
  int64_t Append(absl::Span<const T> values);

  const StepPlanOptions options_;
  Batch batch_;
  cache::KvDtype dtype_ = {};
  std::vector<uint8_t> image_;
  StepShape shape_;
  int64_t sums_begin_ = 0, sums_end_ = 0;

  std::vector<StepRow> rows_;
  std::vector<StepGroup> groups_, decode_groups_, tensor_groups_;
  std::vector<StepChunk> chunks_;
  std::vector<StepRun> runs_;
  std::vector<int32_t> tables_;
  // Rows whose logits are wanted, and those of which tokens are picked: in the
  // image the latter are behind the former.
  std::vector<int32_t> logits_rows_, picked_rows_;
  std::vector<StepPick> picks_;
  std::vector<LogitAdjustment> adjustments_;
};

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_STEP_PLAN_H_
