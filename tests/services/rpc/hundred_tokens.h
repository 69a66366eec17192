// A vocabulary of 100 tokens: 0 to 96 are ordinary, 97 to 99 are special.
#ifndef MILLRACE_TESTS_SERVICES_RPC_HUNDRED_TOKENS_H_
#define MILLRACE_TESTS_SERVICES_RPC_HUNDRED_TOKENS_H_

#include <string>
#include <vector>

#include "tests/testing/fake_tokenizer.h"

namespace millrace::testing {

inline FakeTokenizer HundredTokens() {
  std::vector<std::string> pieces;
  for (int i = 0; i < 97; ++i) {
    pieces.push_back(std::string(1, static_cast<char>(' ' + i % 95)) +
                     (i < 95 ? "" : "+"));
  }
  return FakeTokenizer(pieces, {"<end>", "<start>", "<pad>"});
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_SERVICES_RPC_HUNDRED_TOKENS_H_
