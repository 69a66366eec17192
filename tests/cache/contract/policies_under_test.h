// The visible list of the policies that are held to the contract.
#ifndef MILLRACE_TESTS_CACHE_CONTRACT_POLICIES_UNDER_TEST_H_
#define MILLRACE_TESTS_CACHE_CONTRACT_POLICIES_UNDER_TEST_H_

#include <string>
#include <vector>

namespace millrace::cache {

struct PolicyUnderTest {
  std::string name;
  // Forms to try it in. Small numbers fill soonest; let some be smaller than a
  // block of 16 tokens, some larger, and some at its edge.
  std::vector<std::string> texts;
};

const std::vector<PolicyUnderTest>& PoliciesUnderTest();

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_CONTRACT_POLICIES_UNDER_TEST_H_
