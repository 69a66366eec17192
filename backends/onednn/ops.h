// The fused operations on the CPU. Each is one or two phases of all threads:
//
//   one row        every thread normalises and quantises the row for itself,
//                  so that a product is one phase
//   several rows   a phase prepares the rows, one multiplies
//
// A thread claims groups of 16 outputs, multiplies them with all rows while
// the weights are in its first-level cache, and finishes these outputs in
// place: stores keys, adds to the residual, gates. Keys and values of 8 bits
// are stored afterwards, as their scale needs the whole head.
//
// Multiplying, most of a step, reads weights and prepared rows and writes sums
// of the thread's own: so long others can steal its groups (thread_pool.h).
#ifndef MILLRACE_BACKENDS_ONEDNN_OPS_H_
#define MILLRACE_BACKENDS_ONEDNN_OPS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backends/backend.h"
#include "backends/batch.h"
#include "backends/model_file/model_config.h"
#include "backends/model_file/model_file.h"
#include "backends/onednn/activations.h"
#include "backends/onednn/attention.h"
#include "backends/onednn/kernels/kernels.h"
#include "backends/onednn/kv_storage.h"
#include "backends/onednn/step.h"
#include "backends/onednn/thread_pool.h"
#include "backends/onednn/weights.h"
#include "backends/ops.h"
#include "cache/kv_storage.h"

namespace millrace::backends::onednn {

class CpuOps final : public Ops {
 public:
  // Packs the weights; `file` may be closed afterwards.
  static absl::StatusOr<std::unique_ptr<CpuOps>> Create(
      const ModelFile& file, const LoadOptions& load,
      const BackendOptions& options, const Kernels& kernels);

  ~CpuOps() override;

  // Bytes that Create takes at most.
  static int64_t EstimateMemory(const ModelFile& file, const LoadOptions& load,
                                const BackendOptions& options);

  // Phases of all threads since the start, each with a wait at its end.
  int64_t num_phases() const { return pool_.num_shared_runs(); }

  const ModelConfig& config() const override { return config_; }
  int max_rows() const override { return max_rows_; }

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

 private:
  // What a product multiplies: rows of `source`, normalised if `norm` is given.
  struct Input {
    const float* source;  // [rows][inputs]
    int inputs;
    const float* norm;            // [inputs], or null
    absl::Span<const int> which;  // rows of source; empty: all of the step
    int rows;
  };

  // Finished sums: outputs `first` .. first + n of part `part`, for all rows;
  // row t of tile (and of `second`) is `stride` floats after row t - 1.
  struct Tile {
    int part;
    int first;
    int n;
    float* sums;
    const float* second;  // of the partner matrix; null without
    int stride;
  };
  using Emit = absl::FunctionRef<void(const Tile& tile)>;

  // The input multiplied by up to three matrices, all with the same inputs;
  // their row groups are counted through. `partner`, if not null, has the shape
  // of the only matrix and is multiplied along with it.
  struct Product {
    Input input;
    std::array<const PackedMatrix*, 3> matrices;
    const PackedMatrix* partner = nullptr;
    int shared =
        0;  // index in shared_ of the prepared rows, if there are several
    Emit emit;
  };

  struct Worker;

  CpuOps(const ModelConfig& config, const LoadOptions& load,
         const BackendOptions& options, const Kernels& kernels,
         Weights weights);
  absl::Status AllocateActivations();

  // Hands every output of the product to its `emit`, once.
  void Multiply(Product product);
  // The part of it that are the row groups begin .. end.
  void MultiplyRange(Product product, int begin, int end, int worker);
  void Prepare(const Input& input, int t, Activations& to);
  // Index in shared_ of rows that nobody reads.
  int UnreadRows() const;
  // False if oneDNN could not.
  bool MultiplyGroups(const PackedMatrix& matrix, const Activations& x,
                      int first_group, int num_groups, Worker& worker,
                      float* out) const;
  bool UsesGemm(const PackedMatrix& matrix, int rows) const;
  bool Gemm(const PackedMatrix& matrix, const Activations& x, int first_group,
            int num_groups, Worker& worker, float* out) const;

  void StoreHeads(int layer, bool key, const Tile& tile);
  float* Staged(int row, bool key, int kv_head);
  void RoundStaged(int layer);
  void AddToResidual(const Tile& tile);
  int Width(Activation which) const;
  std::vector<float>& Buffer(Activation which);

  const ModelConfig config_;
  const int max_rows_;
  const bool deterministic_;
  const Kernels& kernels_;
  const Weights weights_;
  // Several rows of a step, prepared. A straggler may still read those of an
  // earlier product, so there are as many as threads.
  std::vector<Activations> shared_;
  std::vector<std::unique_ptr<Worker>> workers_;
  int phase_ = 0;    // counts products, so that a worker prepares once
  ThreadPool pool_;  // behind what stragglers look at
  Step step_;
  onednn::Attention attention_;

  TiledKvStorage* kv_ = nullptr;  // of the step
  std::atomic<bool> failed_{false};

  // Activations, [max_rows][width]; some floats beyond may be read.
  std::vector<float> residual_, query_, attended_, hidden_;
  std::vector<int> logits_rows_;
  // [row][key, value][kv_head][head_dim, padded with zeros]: what the cache can
  // only round as a whole, 8-bit keys and values. Else empty.
  std::vector<float> staged_;
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_OPS_H_
