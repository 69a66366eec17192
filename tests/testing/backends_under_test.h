// The backends that the contract and exactness suites are run on. A new one
// joins by one line in backends_under_test.cc.
#ifndef MILLRACE_TESTS_TESTING_BACKENDS_UNDER_TEST_H_
#define MILLRACE_TESTS_TESTING_BACKENDS_UNDER_TEST_H_

#include <algorithm>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/backend.h"
#include "backends/ops.h"
#include "cache/kv_spec.h"

namespace millrace::testing {

using NewBackendFunction =
    absl::StatusOr<std::unique_ptr<backends::Backend>> (*)(
        const backends::BackendOptions&);

struct BackendUnderTest {
  std::string name;     // of the test instance: letters, digits, underscores
  std::string backend;  // in backends/registry.h
  std::string cpu_kernels = "auto";  // as BackendOptions has it
  // Whether products with quantised weights round activations to 8 bits.
  bool int8_activations = false;
  // As BackendOptions has it. Without, kernels may change with the number of
  // rows, and tolerances are wider.
  bool deterministic = true;
  // Of products that do not round activations to 8 bits: a part of the largest
  // result.
  double product_tolerance = 2e-5;
  // Of attention, a part of the largest result.
  double attention_tolerance = 1e-4;
  // The same where keys and values have 8 bits, and in chunks of many rows.
  double int8_attention_tolerance = 1e-4;
  double many_rows_attention_tolerance = 1e-4;
  // Its models have a StepQueue.
  bool picks_tokens = false;
  // Emulated: long tests leave it out, or run a part of their cases on it,
  // unless MILLRACE_FULL=1.
  bool is_slow = false;
  // "CPU" or "GPU", as DeviceInfo() says.
  std::string device = "CPU";
  // Makes the backend, if it is not in the registry.
  NewBackendFunction new_backend = nullptr;
  // Makes the operations alone.
  absl::StatusOr<std::unique_ptr<backends::Ops>> (*new_ops)(
      const backends::ModelFile&, const backends::LoadOptions&,
      const backends::BackendOptions&) = nullptr;

  // Whether a long test runs all its cases on it.
  bool RunsAllCases() const;

  // FAILED_PRECONDITION if this machine cannot run it.
  absl::StatusOr<std::unique_ptr<backends::Backend>> New(
      const backends::BackendOptions& options) const;

  // In chunks of so many rows at most.
  double AttentionTolerance(cache::KvDtype dtype, int rows) const {
    constexpr int kManyRows = 16;
    double tolerance = attention_tolerance;
    if (dtype == cache::KvDtype::kInt8) {
      tolerance = std::max(tolerance, int8_attention_tolerance);
    }
    if (rows >= kManyRows) {
      tolerance = std::max(tolerance, many_rows_attention_tolerance);
    }
    return tolerance;
  }

  backends::BackendOptions Options(int num_threads) const {
    return {.num_threads = num_threads,
            .cpu_kernels = cpu_kernels,
            .deterministic = deterministic};
  }
};

// Every backend of this program, each with every set of kernels; some may not
// run on this machine. "reference" is the first. Deterministic, so that results
// can be compared bit by bit.
const std::vector<BackendUnderTest>& BackendsUnderTest();

// Backends as they are when bits may depend on the size of batches: tensor
// cores. "cuda_emulated_tensor" always runs.
const std::vector<BackendUnderTest>& TensorCoreBackends();

// Each backend that this machine can run, once, with the kernels that it would
// choose; none that is slow.
std::vector<BackendUnderTest> BackendsAsChosen();

// These, and with MILLRACE_FULL=1 the slow ones.
std::vector<BackendUnderTest> BackendsAsChosenAndSlow();

// For the names of test instances.
std::ostream& operator<<(std::ostream& out, const BackendUnderTest& backend);

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_BACKENDS_UNDER_TEST_H_
