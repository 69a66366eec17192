#include "backends/onednn/backend.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backends/decoder/decoder.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/onednn/kv_storage.h"
#include "backends/onednn/ops.h"

namespace millrace::backends {
namespace onednn {
namespace {

class OnednnBackend final : public Backend {
 public:
  OnednnBackend(const BackendOptions& options, const Kernels& kernels)
      : options_(options), kernels_(kernels) {}

  absl::string_view Name() const override { return "onednn"; }

  std::string DeviceInfo() const override {
    return absl::StrCat("CPU, ", kernels_.name, " kernels, ",
                        options_.num_threads,
                        options_.num_threads == 1 ? " thread" : " threads");
  }

  Capabilities capabilities() const override {
    return {.kv_dtypes = {cache::KvDtype::kInt8, cache::KvDtype::kF16,
                          cache::KvDtype::kBF16, cache::KvDtype::kF32},
            .attention_scores = true};
  }

  int64_t EstimateMemory(const ModelFile& file,
                         const LoadOptions& options) const override {
    return CpuOps::EstimateMemory(file, options, options_);
  }

  absl::StatusOr<std::unique_ptr<Model>> LoadModel(
      const ModelFile& file, const LoadOptions& options) override {
    absl::StatusOr<std::unique_ptr<CpuOps>> ops =
        CpuOps::Create(file, options, options_, kernels_);
    if (!ops.ok()) return ops.status();
    return NewDecoder(*std::move(ops));
  }

  absl::StatusOr<std::unique_ptr<cache::KvStorage>> CreateKvStorage(
      const cache::KvSpec& spec, int32_t num_blocks) override {
    return TiledKvStorage::Create(spec, num_blocks, &kernels_);
  }

 private:
  const BackendOptions options_;
  const Kernels& kernels_;
};

}  // namespace
}  // namespace onednn

absl::StatusOr<std::unique_ptr<Backend>> NewOnednnBackend(
    const BackendOptions& options) {
  if (options.num_threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("start the onednn backend: ", options.num_threads,
                     " threads; 1 or more are needed"));
  }
  const absl::StatusOr<const onednn::Kernels*> kernels =
      onednn::ChooseKernels(options.cpu_kernels);
  if (!kernels.ok()) return kernels.status();
  return std::make_unique<onednn::OnednnBackend>(options, **kernels);
}

absl::StatusOr<std::unique_ptr<Ops>> NewOnednnOps(
    const ModelFile& file, const LoadOptions& load,
    const BackendOptions& options) {
  const absl::StatusOr<const onednn::Kernels*> kernels =
      onednn::ChooseKernels(options.cpu_kernels);
  if (!kernels.ok()) return kernels.status();
  return onednn::CpuOps::Create(file, load, options, **kernels);
}

}  // namespace millrace::backends
