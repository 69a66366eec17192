#include "tests/testing/backends_under_test.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "backends/cuda/backend.h"
#include "backends/cuda/cuda_device.h"
#include "backends/cuda/ops.h"
#include "backends/onednn/cpu_kernels.h"
#include "backends/onednn/ops.h"
#include "backends/reference/ops.h"
#include "backends/reference/weights.h"
#include "backends/registry.h"
#include "tests/testing/cuda_emulator/emulated_device.h"

namespace millrace::testing {
namespace {

using backends::BackendOptions;
using backends::LoadOptions;
using backends::ModelFile;
using backends::Ops;

absl::StatusOr<std::unique_ptr<Ops>> NewReferenceOps(
    const ModelFile& file, const LoadOptions& load,
    const BackendOptions& options) {
  auto weights = backends::reference::LoadWeights(file);
  if (!weights.ok()) return weights.status();
  return std::make_unique<backends::reference::ReferenceOps>(
      file.config(), *std::move(weights), load.max_rows, options.num_threads);
}

absl::StatusOr<std::unique_ptr<Ops>> NewOnednnOps(
    const ModelFile& file, const LoadOptions& load,
    const BackendOptions& options) {
  const auto kernels = backends::onednn::ChooseKernels(options.cpu_kernels);
  if (!kernels.ok()) return kernels.status();
  auto ops = backends::onednn::CpuOps::Create(file, load, options, **kernels);
  if (!ops.ok()) return ops.status();
  return *std::move(ops);
}

BackendUnderTest OnednnWith(std::string name, std::string cpu_kernels) {
  return {.name = std::move(name),
          .backend = "onednn",
          .cpu_kernels = std::move(cpu_kernels),
          .int8_activations = true,
          .int8_attention_tolerance = 2e-4,
          .new_ops = NewOnednnOps};
}

using Device = std::shared_ptr<backends::cuda::Device>;

absl::StatusOr<Device> NewGpu() { return backends::cuda::NewCudaDevice(); }
absl::StatusOr<Device> NewEmulator() {
  return backends::cuda::NewEmulatedDevice();
}

// What a test makes of operations and storage is on one device, while any of it
// is there: two would not wait for each other.
template <absl::StatusOr<Device> (*kNew)()>
absl::StatusOr<Device> Shared() {
  static auto* const shared = new std::weak_ptr<backends::cuda::Device>();
  Device device = shared->lock();
  if (device != nullptr) return device;
  absl::StatusOr<Device> made = kNew();
  if (made.ok()) *shared = *made;
  return made;
}

template <absl::StatusOr<Device> (*kNew)()>
absl::StatusOr<std::unique_ptr<Ops>> NewCudaOps(const ModelFile& file,
                                                const LoadOptions& load,
                                                const BackendOptions& options) {
  absl::StatusOr<Device> device = Shared<kNew>();
  if (!device.ok()) return device.status();
  return backends::cuda::CudaOps::Create(file, load, *std::move(device),
                                         options.deterministic);
}

template <absl::StatusOr<Device> (*kNew)()>
absl::StatusOr<std::unique_ptr<backends::Backend>> NewCudaBackend(
    const BackendOptions& options) {
  absl::StatusOr<Device> device = Shared<kNew>();
  if (!device.ok()) return device.status();
  return backends::NewBackendOnDevice(options, *std::move(device));
}

}  // namespace

absl::StatusOr<std::unique_ptr<backends::Backend>> BackendUnderTest::New(
    const BackendOptions& options) const {
  return new_backend != nullptr ? new_backend(options)
                                : backends::NewBackend(backend, options);
}

bool BackendUnderTest::RunsAllCases() const {
  const char* const full = std::getenv("MILLRACE_FULL");
  return !is_slow || (full != nullptr && std::string(full) == "1");
}

const std::vector<BackendUnderTest>& BackendsUnderTest() {
  static const auto* backends = new std::vector<BackendUnderTest>{
      {.name = "reference", .backend = "reference", .new_ops = NewReferenceOps},
      OnednnWith("onednn", "auto"),
      OnednnWith("onednn_scalar", "scalar"),
      OnednnWith("onednn_avx2", "avx2"),
      OnednnWith("onednn_avx512", "avx512"),
      {.name = "cuda",
       .backend = "cuda",
       .picks_tokens = true,
       .device = "GPU",
       .new_backend = NewCudaBackend<NewGpu>,
       .new_ops = NewCudaOps<NewGpu>},
      {.name = "cuda_emulated",
       .backend = "cuda",
       .picks_tokens = true,
       .is_slow = true,
       .new_backend = NewCudaBackend<NewEmulator>,
       .new_ops = NewCudaOps<NewEmulator>},
  };
  return *backends;
}

// Activations of 11 bits: 2.4e-4 of each at most, of which most cancel.
constexpr double kHalfTolerance = 5e-4;

// Of attention: queries, exponentials and what is stored in more bits.
constexpr double kHalfAttentionTolerance = 1e-3;

const std::vector<BackendUnderTest>& TensorCoreBackends() {
  static const auto* backends = new std::vector<BackendUnderTest>{
      {.name = "cuda_tensor",
       .backend = "cuda",
       .deterministic = false,
       .product_tolerance = kHalfTolerance,
       .many_rows_attention_tolerance = kHalfAttentionTolerance,
       .device = "GPU",
       .new_backend = NewCudaBackend<NewGpu>,
       .new_ops = NewCudaOps<NewGpu>},
      {.name = "cuda_emulated_tensor",
       .backend = "cuda",
       .deterministic = false,
       .product_tolerance = kHalfTolerance,
       .many_rows_attention_tolerance = kHalfAttentionTolerance,
       .is_slow = true,
       .new_backend = NewCudaBackend<NewEmulator>,
       .new_ops = NewCudaOps<NewEmulator>},
  };
  return *backends;
}

std::vector<BackendUnderTest> BackendsAsChosen() {
  std::vector<BackendUnderTest> chosen;
  for (const BackendUnderTest& backend : BackendsUnderTest()) {
    if (backend.cpu_kernels == "auto" && !backend.is_slow &&
        backend.New(backend.Options(1)).ok()) {
      chosen.push_back(backend);
    }
  }
  return chosen;
}

std::vector<BackendUnderTest> BackendsAsChosenAndSlow() {
  std::vector<BackendUnderTest> chosen = BackendsAsChosen();
  for (const BackendUnderTest& backend : BackendsUnderTest()) {
    if (backend.is_slow && backend.RunsAllCases()) chosen.push_back(backend);
  }
  return chosen;
}

std::ostream& operator<<(std::ostream& out, const BackendUnderTest& backend) {
  return out << backend.name;
}

}  // namespace millrace::testing
