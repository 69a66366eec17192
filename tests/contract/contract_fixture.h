// The fixture of the contract suites: one backend, skipped where it cannot run.
#ifndef MILLRACE_TESTS_CONTRACT_CONTRACT_FIXTURE_H_
#define MILLRACE_TESTS_CONTRACT_CONTRACT_FIXTURE_H_

#include <memory>
#include <string>
#include <utility>

#include "backends/backend.h"
#include "gtest/gtest.h"
#include "tests/testing/backends_under_test.h"

namespace millrace::testing {

class ContractTest : public ::testing::TestWithParam<BackendUnderTest> {
 protected:
  void SetUp() override {
    auto backend = GetParam().New(GetParam().Options(1));
    if (absl::IsFailedPrecondition(backend.status())) {
      GTEST_SKIP() << backend.status().message();
    }
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
  }

  // With one thread.
  backends::Backend& backend() { return *backend_; }

 private:
  std::unique_ptr<backends::Backend> backend_;
};

struct BackendName {
  std::string operator()(
      const ::testing::TestParamInfo<BackendUnderTest>& info) const {
    return info.param.name;
  }
};

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_CONTRACT_CONTRACT_FIXTURE_H_
