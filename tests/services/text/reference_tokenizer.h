// The tokenizer of the default model, for tests against reference ids.
#ifndef MILLRACE_TESTS_SERVICES_TEXT_REFERENCE_TOKENIZER_H_
#define MILLRACE_TESTS_SERVICES_TEXT_REFERENCE_TOKENIZER_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "backends/model_file/registry.h"
#include "services/text/tokenizer.h"
#include "tests/testing/test_files.h"

namespace millrace::text {

// Null where the model file is not there.
inline const Tokenizer* ReferenceTokenizer() {
  static const auto* const tokenizer = []() -> const Tokenizer* {
    const std::string path = testing::DefaultModelPath();
    if (path.empty()) return nullptr;
    const auto file = backends::OpenModelFile(path, {});
    if (!file.ok()) {
      ADD_FAILURE() << file.status();
      return nullptr;
    }
    auto made = Tokenizer::Create((*file)->tokenizer());
    if (!made.ok()) {
      ADD_FAILURE() << made.status();
      return nullptr;
    }
    return made->release();
  }();
  return tokenizer;
}

}  // namespace millrace::text

#define SKIP_WITHOUT_MODEL()                          \
  if (testing::DefaultModelPath().empty()) {          \
    GTEST_SKIP() << "the default model is not there"; \
  }                                                   \
  ASSERT_NE(ReferenceTokenizer(), nullptr)

#endif  // MILLRACE_TESTS_SERVICES_TEXT_REFERENCE_TOKENIZER_H_
