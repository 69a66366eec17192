// Runs one operation on the reference backend and on another one, from equal
// activations and equal keys and values, and compares what they leave.
#ifndef MILLRACE_TESTS_CONTRACT_OPS_PAIR_H_
#define MILLRACE_TESTS_CONTRACT_OPS_PAIR_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "backends/backend.h"
#include "backends/batch.h"
#include "backends/model_file/model_file.h"
#include "backends/ops.h"
#include "cache/cache_manager.h"
#include "tests/testing/backends_under_test.h"

namespace millrace::testing {

// One chunk of a batch to be made: a sequence that already has a history.
struct ChunkSpec {
  std::string policy;
  int64_t history = 0;
  int rows = 1;
  int num_logits = 1;
  int64_t shift = 0;  // added to the rule of the first run
};

class OpsPair {
 public:
  // Only tensors of types and shapes that both take. `num_threads` is that of
  // the backend under test.
  OpsPair(const BackendUnderTest& backend, const backends::ModelFile& file,
          cache::KvDtype dtype, int num_threads);

  // Begins the batch on both. All keys and values in the storages are random,
  // and so are all activations; both sides have the same.
  void Begin(const std::vector<ChunkSpec>& chunks, uint64_t seed);

  // Applies the operation to both.
  void Run(absl::FunctionRef<void(backends::Ops&)> operation);

  // Expects equal activations, within `tolerance` times the largest of them,
  // and other ones than before.
  void ExpectChanged(backends::Activation which, double tolerance);
  // Expects equal keys and values, in all blocks, within the same, and what is
  // written to be numbers of the dtype; nothing in other layers than `layer`
  // and in other slots than the batch's may change.
  void ExpectStored(int layer, double tolerance);
  void ExpectNothingStored();
  void ExpectLogits(double tolerance);

  const backends::ModelConfig& config() const {
    return reference_.ops->config();
  }
  // Rows of the batch's largest chunk.
  int LargestChunk() const;

 private:
  struct Side {
    std::unique_ptr<backends::Backend> backend;
    std::unique_ptr<backends::Ops> ops;
    std::unique_ptr<cache::KvStorage> storage;

    std::vector<float> Read(backends::Activation which, int64_t values) const;
    std::vector<float> ReadBlocks(
        absl::Span<const cache::KvBlock> blocks) const;
  };

  static Side NewSide(const BackendUnderTest& backend,
                      const backends::ModelFile& file,
                      const cache::KvSpec& spec, int num_threads);
  int64_t Values(backends::Activation which) const;
  void AddChunk(const ChunkSpec& spec, uint64_t seed);
  std::vector<cache::KvBlock> BlocksInUse() const;
  bool IsWritten(size_t i, int layer) const;

  const cache::KvSpec spec_;
  Side reference_, tested_;
  cache::CacheManager manager_;

  backends::Batch batch_;
  std::vector<std::vector<int32_t>> ids_;
  std::vector<std::unique_ptr<cache::KvView>> views_;
  std::vector<cache::SequenceId> open_;
  std::vector<std::vector<float>> activations_;  // before, by Activation
  const std::vector<float> numbers_;             // of all blocks
  std::vector<cache::KvBlock> blocks_;           // all, as the batch uses them
  std::vector<float> stored_;                    // before, as rounded
  std::set<std::pair<int64_t, int64_t>> slots_;  // block, slot; of the batch
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CONTRACT_OPS_PAIR_H_
