#include "backends/cuda/backend.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backends/cuda/cuda_device.h"
#include "backends/cuda/kv_storage.h"
#include "backends/cuda/model.h"
#include "backends/cuda/ops.h"

namespace millrace::backends {
namespace cuda {
namespace {

// A step reads all weights, whatever it computes: on an H100, 256 rows of
// 16-bit weights are about as many as it multiplies in the time that it takes
// to read them (990 TFLOP/s by 3.35 TB/s). A chunk costs every session the K/V
// memory of its tokens.
constexpr int kDecodeRows = 256;
constexpr int kPrefillChunkTokens = 256;

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::shared_ptr<Device> device, bool deterministic)
      : device_(std::move(device)), deterministic_(deterministic) {}

  absl::string_view Name() const override { return "cuda"; }

  std::string DeviceInfo() const override { return device_->Info(); }

  Capabilities capabilities() const override {
    return {.kv_dtypes = {cache::KvDtype::kInt8, cache::KvDtype::kF16,
                          cache::KvDtype::kBF16, cache::KvDtype::kF32},
            .attention_scores = true,
            .decode_rows = kDecodeRows,
            .prefill_chunk_tokens = kPrefillChunkTokens};
  }

  int64_t EstimateMemory(const ModelFile& file,
                         const LoadOptions& options) const override {
    return CudaOps::EstimateMemory(file, options);
  }

  std::optional<int64_t> AvailableMemory() const override {
    return device_->FreeBytes();
  }

  absl::StatusOr<std::unique_ptr<Model>> LoadModel(
      const ModelFile& file, const LoadOptions& options) override {
    absl::StatusOr<std::unique_ptr<CudaOps>> ops =
        CudaOps::Create(file, options, device_, deterministic_);
    if (!ops.ok()) return ops.status();
    return NewGraphModel(*std::move(ops));
  }

  absl::StatusOr<std::unique_ptr<cache::KvStorage>> CreateKvStorage(
      const cache::KvSpec& spec, int32_t num_blocks) override {
    const auto dtypes = capabilities().kv_dtypes;
    if (std::find(dtypes.begin(), dtypes.end(), spec.dtype) == dtypes.end()) {
      return absl::InvalidArgumentError("create KV storage: unknown dtype");
    }
    return DeviceKvStorage::Create(spec, num_blocks, device_);
  }

 private:
  const std::shared_ptr<Device> device_;
  const bool deterministic_;
};

absl::Status Check(const BackendOptions& options) {
  if (options.num_threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("start the cuda backend: ", options.num_threads,
                     " threads; 1 or more are needed"));
  }
  // So that "auto" with kernels of the CPU is the CPU.
  if (options.cpu_kernels != "auto") {
    return absl::FailedPreconditionError(
        absl::StrCat("start the cuda backend: it has no CPU kernels '",
                     options.cpu_kernels, "'; leave them out"));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace cuda

absl::StatusOr<std::unique_ptr<Backend>> NewBackendOnDevice(
    const BackendOptions& options, std::shared_ptr<cuda::Device> device) {
  const absl::Status checked = cuda::Check(options);
  if (!checked.ok()) return checked;
  return std::make_unique<cuda::CudaBackend>(std::move(device),
                                             options.deterministic);
}

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(
    const BackendOptions& options) {
  const absl::Status checked = cuda::Check(options);
  if (!checked.ok()) return checked;
  absl::StatusOr<std::shared_ptr<cuda::Device>> device = cuda::NewCudaDevice();
  if (!device.ok()) return device.status();
  return NewBackendOnDevice(options, *std::move(device));
}

bool IsCudaCompiledIn() { return cuda::IsCompiledIn(); }

}  // namespace millrace::backends
