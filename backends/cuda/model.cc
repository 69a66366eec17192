#include "backends/cuda/model.h"

#include <map>
#include <utility>

#include "backends/decoder/decoder.h"

namespace millrace::backends::cuda {
namespace {

// Shapes are few; should they be many after all, all graphs are made anew.
constexpr size_t kMaxGraphs = 128;

class GraphModel final : public Model, private StepQueue {
 public:
  explicit GraphModel(std::unique_ptr<CudaOps> ops) : ops_(std::move(ops)) {}

  const ModelConfig& config() const override { return ops_->config(); }
  int max_rows() const override { return ops_->max_rows(); }

  StepQueue* step_queue() override { return this; }

  absl::Status Forward(const Batch& batch, cache::KvStorage& kv,
                       absl::Span<float> logits) override {
    const absl::Status begun = Begin(batch, kv);
    return begun.ok() ? End(logits) : begun;
  }

 private:
  absl::Status Begin(const Batch& batch, cache::KvStorage& kv) override {
    const absl::Status begun = ops_->unfinished() == 0
                                   ? ops_->Begin(batch, kv)
                                   : ops_->BeginBehind(batch, kv);
    if (!begun.ok()) return begun;
    const absl::StatusOr<Graph*> graph = GraphOfStep();
    if (!graph.ok()) return graph.status();
    ops_->device().Launch(**graph);
    ops_->EnqueueResults();
    return absl::OkStatus();
  }

  absl::Status End(absl::Span<float> logits) override {
    return ops_->Finish(logits);
  }

  absl::StatusOr<Graph*> GraphOfStep() {
    const CudaOps::GraphKey key = ops_->graph_key();
    const auto known = graphs_.find(key);
    if (known != graphs_.end()) return known->second.get();
    if (graphs_.size() == kMaxGraphs) {
      const absl::Status idle = ops_->device().Synchronize();
      if (!idle.ok()) return idle;
      graphs_.clear();
    }
    absl::StatusOr<std::unique_ptr<Graph>> graph =
        ops_->device().Capture([this] {
          RunLayers(*ops_);
          ops_->EnqueueLogits();
        });
    if (!graph.ok()) return graph.status();
    return (graphs_[key] = *std::move(graph)).get();
  }

  const std::unique_ptr<CudaOps> ops_;
  std::map<CudaOps::GraphKey, std::unique_ptr<Graph>> graphs_;
};

}  // namespace

std::unique_ptr<Model> NewGraphModel(std::unique_ptr<CudaOps> ops) {
  return std::make_unique<GraphModel>(std::move(ops));
}

}  // namespace millrace::backends::cuda
