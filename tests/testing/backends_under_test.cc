#include "tests/testing/backends_under_test.h"

#include <utility>

#include "backends/onednn/cpu_kernels.h"
#include "backends/onednn/ops.h"
#include "backends/reference/ops.h"
#include "backends/reference/weights.h"

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

}  // namespace

const std::vector<BackendUnderTest>& BackendsUnderTest() {
  static const auto* backends = new std::vector<BackendUnderTest>{
      {"reference", "reference", "auto", false, NewReferenceOps},
      {"onednn", "onednn", "auto", true, NewOnednnOps},
      {"onednn_scalar", "onednn", "scalar", true, NewOnednnOps},
      {"onednn_avx2", "onednn", "avx2", true, NewOnednnOps},
      {"onednn_avx512", "onednn", "avx512", true, NewOnednnOps},
  };
  return *backends;
}

std::vector<BackendUnderTest> BackendsAsChosen() {
  std::vector<BackendUnderTest> chosen;
  for (const BackendUnderTest& backend : BackendsUnderTest()) {
    if (backend.cpu_kernels == "auto") chosen.push_back(backend);
  }
  return chosen;
}

std::ostream& operator<<(std::ostream& out, const BackendUnderTest& backend) {
  return out << backend.name;
}

}  // namespace millrace::testing
