#include "tests/testing/backends_under_test.h"

#include <utility>

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

}  // namespace

const std::vector<BackendUnderTest>& BackendsUnderTest() {
  static const auto* backends = new std::vector<BackendUnderTest>{
      {"reference", "reference", "auto", false, NewReferenceOps},
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
