#include "backends/decoder/decoder.h"

#include <utility>

namespace millrace::backends {
namespace {

class Decoder final : public Model {
 public:
  explicit Decoder(std::unique_ptr<Ops> ops) : ops_(std::move(ops)) {}

  const ModelConfig& config() const override { return ops_->config(); }
  int max_rows() const override { return ops_->max_rows(); }

  absl::Status Forward(const Batch& batch, cache::KvStorage& kv,
                       absl::Span<float> logits) override {
    const absl::Status begun = ops_->Begin(batch, kv);
    if (!begun.ok()) return begun;
    RunLayers(*ops_);
    return ops_->Logits(logits);
  }

 private:
  const std::unique_ptr<Ops> ops_;
};

}  // namespace

void RunLayers(Ops& ops) {
  ops.Embed();
  for (int layer = 0; layer < ops.config().num_layers; ++layer) {
    ops.AttentionInput(layer);
    ops.Attention(layer);
    ops.AttentionOutput(layer);
    ops.FeedForwardIn(layer);
    ops.FeedForwardOut(layer);
  }
}

std::unique_ptr<Model> NewDecoder(std::unique_ptr<Ops> ops) {
  return std::make_unique<Decoder>(std::move(ops));
}

}  // namespace millrace::backends
