// Files that tests read: test data, and the default model where it is there.
#ifndef MILLRACE_TESTS_TESTING_TEST_FILES_H_
#define MILLRACE_TESTS_TESTING_TEST_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace millrace::testing {

// The content of tests/testdata/NAME; ends in ".xz": unpacked. Aborts, naming
// the file, if it cannot be read.
std::string TestData(absl::string_view name);

// The same as numbers, little-endian.
std::vector<float> TestFloats(absl::string_view name);
std::vector<int32_t> TestIds(absl::string_view name);  // uint16

// $MILLRACE_MODEL, else where deploy/setup puts it. Empty if there is no file:
// a test skips then.
std::string DefaultModelPath();

// Whether the long forms of tests are wanted (tests/run --full).
bool FullTests();

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_TEST_FILES_H_
