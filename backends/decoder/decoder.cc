#include "backends/decoder/decoder.h"

#include <array>
#include <chrono>
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
    Stopwatch watch(&times_);
    const absl::Status begun = ops_->Begin(batch, kv);
    watch.Ended(Phase::kBegin);
    if (!begun.ok()) return begun;
    RunLayers(*ops_, [&](Phase phase) { watch.Ended(phase); });
    const absl::Status computed = ops_->Logits(logits);
    watch.Ended(Phase::kLogits);
    return computed;
  }

  PhaseTimes phase_times() const override {
    PhaseTimes out;
    for (int i = 0; i < kNumPhases; ++i) out[i] = absl::FromChrono(times_[i]);
    return out;
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Times = std::array<Clock::duration, kNumPhases>;

  // One look at the clock a phase: some 25 ns, 4 us of a step of 30 layers.
  class Stopwatch {
   public:
    explicit Stopwatch(Times* times) : times_(*times) {}
    void Ended(Phase phase) {
      const Clock::time_point now = Clock::now();
      times_[static_cast<int>(phase)] += now - last_;
      last_ = now;
    }

   private:
    Times& times_;
    Clock::time_point last_ = Clock::now();
  };

  const std::unique_ptr<Ops> ops_;
  Times times_ = {};
};

}  // namespace

void RunLayers(Ops& ops, absl::FunctionRef<void(Phase)> ended) {
  ops.Embed();
  ended(Phase::kEmbed);
  for (int layer = 0; layer < ops.config().num_layers; ++layer) {
    ops.AttentionInput(layer);
    ended(Phase::kAttentionInput);
    ops.Attention(layer);
    ended(Phase::kAttention);
    ops.AttentionOutput(layer);
    ended(Phase::kAttentionOutput);
    ops.FeedForwardIn(layer);
    ended(Phase::kFeedForwardIn);
    ops.FeedForwardOut(layer);
    ended(Phase::kFeedForwardOut);
  }
}

std::unique_ptr<Model> NewDecoder(std::unique_ptr<Ops> ops) {
  return std::make_unique<Decoder>(std::move(ops));
}

}  // namespace millrace::backends
