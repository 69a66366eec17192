// Runs a model over texts as the engine does, without an engine: reserve,
// forward, commit.
//
//   auto runner = ModelRunner::Create(*file, {.backend = "onednn"});
//   const SequenceId id = (*runner)->Open(NamedPolicy("full"));
//   const Rows logits = (*runner)->Read(id, ids, /*chunk=*/64);
//   const std::vector<Rows> step = (*runner)->Step({{a, {5}}, {b, {7, 9}}});
//
// A status that is not OK ends the process: in these tests nothing may fail.
#ifndef MILLRACE_TESTS_TESTING_MODEL_RUNNER_H_
#define MILLRACE_TESTS_TESTING_MODEL_RUNNER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backends/backend.h"
#include "cache/cache_manager.h"

namespace millrace::testing {

// The logits of consecutive rows: [row][vocabulary_size].
using Rows = std::vector<std::vector<float>>;

struct ModelRunnerOptions {
  std::string backend = "reference";
  // Makes the backend instead, if it is not in the registry.
  absl::StatusOr<std::unique_ptr<backends::Backend>> (*new_backend)(
      const backends::BackendOptions&) = nullptr;
  backends::BackendOptions backend_options = {};
  cache::KvDtype kv_dtype = cache::KvDtype::kF32;
  int max_rows = 128;
  int32_t num_blocks = 512;
};

class ModelRunner {
 public:
  // The status of NewBackend, if this machine cannot run it.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(
      const backends::ModelFile& file, const ModelRunnerOptions& options);

  // Opens a sequence whose chunks are at most max_rows tokens.
  cache::SequenceId Open(std::shared_ptr<const cache::CachePolicy> policy,
                         int64_t rollback_tokens = 0);

  // Of a sequence that was restored in manager(): the tokens that it has.
  void Adopt(cache::SequenceId id, absl::Span<const int32_t> ids) {
    texts_[id] = {ids.begin(), ids.end()};
  }

  // Appends a text in chunks of `chunk` tokens; the logits of all its rows.
  Rows Read(cache::SequenceId id, absl::Span<const int32_t> ids, int chunk);

  // The same for a long text: hands each row's logits over instead.
  using OnRow =
      absl::FunctionRef<void(int64_t position, absl::Span<const float> logits)>;
  void Read(cache::SequenceId id, absl::Span<const int32_t> ids, int chunk,
            OnRow on_row);

  // One step of several sequences; the logits of their last `num_logits` rows,
  // or of all.
  struct Part {
    cache::SequenceId id;
    std::vector<int32_t> ids;
    int num_logits = -1;
  };
  std::vector<Rows> Step(const std::vector<Part>& parts);

  // The same, in one piece and not copied; valid until the next step.
  absl::Span<const float> Advance(const std::vector<Part>& parts);

  // A step whose views the test has made itself; the wanted logits, in order.
  Rows Forward(const backends::Batch& batch);

  cache::CacheManager& manager() { return manager_; }
  cache::KvStorage& storage() { return *storage_; }
  backends::Model& model() { return *model_; }
  const backends::ModelConfig& config() const { return model_->config(); }
  backends::PhaseTimes phase_times() const { return model_->phase_times(); }

 private:
  ModelRunner(const ModelRunnerOptions& options, const cache::KvSpec& spec,
              std::unique_ptr<backends::Model> model,
              std::unique_ptr<cache::KvStorage> storage);

  absl::Span<const float> Compute(const backends::Batch& batch);
  Rows AsRows(absl::Span<const float> logits) const;

  const ModelRunnerOptions options_;
  const std::unique_ptr<backends::Model> model_;
  const std::unique_ptr<cache::KvStorage> storage_;
  cache::CacheManager manager_;
  // Of the sequences that Read has read.
  std::map<cache::SequenceId, std::vector<int32_t>> texts_;
  std::vector<float> logits_;  // of the last step, at its front
};

// `count` token ids below `vocabulary_size`, by seed.
std::vector<int32_t> RandomIds(int count, int vocabulary_size, uint64_t seed);

// The largest difference of two logits.
double MaxDifference(const Rows& a, const Rows& b);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_MODEL_RUNNER_H_
