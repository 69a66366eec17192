// The fused operations on a GPU: each puts a few kernels into the device's
// stream and returns at once; Logits and Read wait.
//
// Activations are rows of floats in device memory, each a multiple of 32 wide.
#ifndef MILLRACE_BACKENDS_CUDA_OPS_H_
#define MILLRACE_BACKENDS_CUDA_OPS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backends/backend.h"
#include "backends/batch.h"
#include "backends/cuda/device.h"
#include "backends/cuda/kv_storage.h"
#include "backends/cuda/step_plan.h"
#include "backends/cuda/weights.h"
#include "backends/model_file/model_file.h"
#include "backends/ops.h"

namespace millrace::backends::cuda {

class CudaOps final : public Ops {
 public:
  // Tables of heads (moved keys, sums of attention) that a step has room for.
  static constexpr int64_t kHeadTableBytes = 64 << 20;

  // RESOURCE_EXHAUSTED if the model does not fit, UNIMPLEMENTED for heads that
  // do not fit the device's shared memory. `deterministic`: no tensor cores, so
  // that a row's bits never depend on how many rows there are.
  static absl::StatusOr<std::unique_ptr<CudaOps>> Create(
      const ModelFile& file, const LoadOptions& load,
      std::shared_ptr<Device> device, bool deterministic);
  // An upper bound of what Create allocates on the device, and steps need; but
  // for a single chunk that has more tables of heads than kHeadTableBytes.
  static int64_t EstimateMemory(const ModelFile& file, const LoadOptions& load);

  const ModelConfig& config() const override { return config_; }
  int max_rows() const override { return max_rows_; }

  // INVALID_ARGUMENT for the storage of another backend. Waits for steps that
  // are not finished, and forgets them.
  absl::Status Begin(const Batch& batch, cache::KvStorage& kv) override;
  void Embed() override;
  void AttentionInput(int layer) override;
  void Attention(int layer) override;
  void AttentionOutput(int layer) override;
  void FeedForwardIn(int layer) override;
  void FeedForwardOut(int layer) override;
  absl::Status Logits(absl::Span<float> logits) override;
  void Read(Activation which, absl::Span<float> out) const override;
  void Write(Activation which, absl::Span<const float> in) override;

  // ---- For a step that is captured and launched as a whole ----

  // What the kernels of the step depend on besides memory that this object
  // owns: two steps with equal keys have equal graphs.
  struct GraphKey {
    StepShape shape;
    int place;  // of the step's image and tokens
    const void* image;
    const void* kv;
    cache::KvDtype dtype;

    friend auto operator<=>(const GraphKey&, const GraphKey&) = default;
  };
  GraphKey graph_key() const;
  Device& device() { return *device_; }
  const StepPlanOptions& plan_options() const {
    return steps_[0].plan.options();
  }

  // As Begin, while the step before is not finished: StepQueue::Begin.
  absl::Status BeginBehind(const Batch& batch, cache::KvStorage& kv);
  // Logits in three parts. The kernels of logits, and of what is picked of
  // them; what the host reads, behind the step; waiting for it, and taking it.
  void EnqueueLogits();
  void EnqueueResults();
  absl::Status Finish(absl::Span<float> logits);
  int unfinished() const { return unfinished_; }

 private:
  // Widths of rows in memory, and where things are in `activations_`.
  struct Layout;

  CudaOps(const ModelConfig& config, Weights weights, const Layout& layout,
          const StepPlanOptions& plan, bool deterministic,
          std::shared_ptr<Device> device, Memory activations,
          Memory host_logits);

  // What the host keeps of a step.
  struct Step {
    explicit Step(const StepPlanOptions& options) : plan(options) {}

    StepPlan plan;
    Memory image, host_image;
    int64_t image_bytes = 0;
    int32_t* picked = nullptr;  // on the device, in `activations_`
    Memory host_picked;
    std::unique_ptr<Event> done;
  };
  absl::Status Prepare(Step& step, int64_t image_bytes);
  absl::Status MakeImage(Step& step, int64_t bytes);
  absl::Status Upload(Step& step);
  absl::Status BeginStep(const Batch& batch, cache::KvStorage& kv);
  const Step& step() const { return steps_[newest_]; }
  const Step& before() const { return steps_[1 - newest_]; }
  const StepShape& shape() const { return step().plan.shape(); }
  const StepHeader* header() const {
    return reinterpret_cast<const StepHeader*>(step().image.get());
  }
  AttentionArgs AttentionOf(int layer) const;
  ProductArgs Product(Rows in, const float* norm, ProductEnd end) const;
  // Waits for all, and hands sums of attention over to the views that ask.
  absl::Status Settle() const;

  struct Buffer {
    Rows rows;
    int width;
  };
  Buffer BufferOf(Activation which) const;

  const ModelConfig config_;
  const std::shared_ptr<Device> device_;
  const Weights weights_;
  const int max_rows_;
  const Memory activations_;
  const Memory host_logits_;

  // In `activations_`.
  Rows residual_, query_, keys_, values_, attended_, hidden_, logits_;
  float* row_statistics_;
  float* partials_;
  int* arrived_;
  uint64_t* turns_;
  HalfRows halves_;

  // A step that is begun alone has the first place: it may have tables of
  // heads.
  std::array<Step, 2> steps_;
  int oldest_ = 0;
  int newest_ = 0;
  int unfinished_ = 0;
  const DeviceKvStorage* kv_ = nullptr;
  mutable bool sums_are_due_ = false;
};

}  // namespace millrace::backends::cuda

#endif  // MILLRACE_BACKENDS_CUDA_OPS_H_
