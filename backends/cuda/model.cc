#include "backends/cuda/model.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "backends/decoder/decoder.h"

namespace millrace::backends::cuda {
namespace {

// Shapes are few; should they be many after all, all graphs are made anew.
constexpr size_t kMaxGraphs = 128;

class GraphModel final : public Model, private StepQueue {
 public:
  GraphModel(std::unique_ptr<CudaOps> ops, int64_t table_bytes)
      : ops_(std::move(ops)), table_bytes_(table_bytes) {}

  const ModelConfig& config() const override { return ops_->config(); }
  int max_rows() const override { return ops_->max_rows(); }

  StepQueue* step_queue() override { return this; }

  absl::Status Forward(const Batch& batch, cache::KvStorage& kv,
                       absl::Span<float> logits) override {
    const absl::Status begun = Begin(batch, kv);
    return begun.ok() ? End(logits) : begun;
  }

 private:
  // Pieces but the last are done before this returns, their logits kept.
  absl::Status Begin(const Batch& batch, cache::KvStorage& kv) override {
    const std::vector<Batch> pieces =
        InPieces(batch, ops_->plan_options(), table_bytes_);
    kept_.clear();
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      const absl::Status begun = BeginPiece(pieces[i], kv);
      if (!begun.ok()) return begun;
      const size_t first = kept_.size();
      kept_.resize(first + static_cast<size_t>(pieces[i].logits_rows()) *
                               config().vocabulary_size);
      const absl::Status ended =
          ops_->Finish(absl::MakeSpan(kept_).subspan(first));
      if (!ended.ok()) return ended;
    }
    return BeginPiece(pieces.back(), kv);
  }

  absl::Status BeginPiece(const Batch& batch, cache::KvStorage& kv) {
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
    absl::c_copy(kept_, logits.begin());
    return ops_->Finish(logits.subspan(kept_.size()));
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
  const int64_t table_bytes_;
  std::vector<float> kept_;  // logits of pieces that are done
  std::map<CudaOps::GraphKey, std::unique_ptr<Graph>> graphs_;
};

}  // namespace

std::unique_ptr<Model> NewGraphModel(std::unique_ptr<CudaOps> ops,
                                     int64_t table_bytes) {
  return std::make_unique<GraphModel>(std::move(ops), table_bytes);
}

}  // namespace millrace::backends::cuda
