// What every model file keeps, whatever its format. A format joins by one
// line:
//
//   INSTANTIATE_TEST_SUITE_P(Gguf, ModelFileContract,
//                            Values(ContractCase{"gguf", &TinyModel}));
#ifndef MILLRACE_TESTS_BACKENDS_MODEL_FILE_MODEL_FILE_CONTRACT_H_
#define MILLRACE_TESTS_BACKENDS_MODEL_FILE_MODEL_FILE_CONTRACT_H_

#include <functional>
#include <string>

#include "gtest/gtest.h"
#include "tests/testing/gguf_writer.h"

namespace millrace::backends {

struct ContractCase {
  std::string format;  // as ModelFileFormats() lists it

  // The bytes of a model file of that format, with the tiny model of these
  // options in it.
  std::function<std::string(const testing::TinyLlamaOptions&)> bytes;
};

class ModelFileContract : public ::testing::TestWithParam<ContractCase> {};

}  // namespace millrace::backends

#endif  // MILLRACE_TESTS_BACKENDS_MODEL_FILE_MODEL_FILE_CONTRACT_H_
