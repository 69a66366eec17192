#include "backends/reference/backend.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backends/decoder/decoder.h"
#include "backends/reference/kv_storage.h"
#include "backends/reference/ops.h"
#include "backends/reference/weights.h"

namespace millrace::backends {
namespace reference {
namespace {

class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(int num_threads) : num_threads_(num_threads) {}

  absl::string_view Name() const override { return "reference"; }

  std::string DeviceInfo() const override {
    return absl::StrCat("CPU, plain C++, ", num_threads_,
                        num_threads_ == 1 ? " thread" : " threads");
  }

  Capabilities capabilities() const override {
    return {.kv_dtypes = {cache::KvDtype::kInt8, cache::KvDtype::kF16,
                          cache::KvDtype::kBF16, cache::KvDtype::kF32},
            .attention_scores = true};
  }

  // Weights as floats; per row, the activations of the step, those that an
  // operation makes and their copies in lanes of 16.
  int64_t EstimateMemory(const ModelFile& file,
                         const LoadOptions& options) const override {
    const ModelConfig& config = file.config();
    const int64_t row =
        4 * (int64_t{config.embedding_size} + config.query_size() +
             config.kv_size() + config.feed_forward_size);
    const int64_t rows = options.max_rows + 15;
    return 4 * (file.info().num_parameters + rows * row);
  }

  absl::StatusOr<std::unique_ptr<Model>> LoadModel(
      const ModelFile& file, const LoadOptions& options) override {
    absl::StatusOr<Weights> weights = LoadWeights(file);
    if (!weights.ok()) return weights.status();
    return NewDecoder(std::make_unique<ReferenceOps>(
        file.config(), *std::move(weights), options.max_rows, num_threads_));
  }

  absl::StatusOr<std::unique_ptr<cache::KvStorage>> CreateKvStorage(
      const cache::KvSpec& spec, int32_t num_blocks) override {
    return PlainKvStorage::Create(spec, num_blocks);
  }

 private:
  const int num_threads_;
};

}  // namespace
}  // namespace reference

absl::StatusOr<std::unique_ptr<Backend>> NewReferenceBackend(
    const BackendOptions& options) {
  if (options.num_threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("start the reference backend: ", options.num_threads,
                     " threads; 1 or more are needed"));
  }
  return std::make_unique<reference::ReferenceBackend>(options.num_threads);
}

}  // namespace millrace::backends
