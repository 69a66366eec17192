// Policies that break a promise, and that a contract finds them out.
#ifndef MILLRACE_TESTS_CACHE_CONTRACT_BROKEN_POLICY_H_
#define MILLRACE_TESTS_CACHE_CONTRACT_BROKEN_POLICY_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tests/cache/contract/properties.h"

namespace millrace::cache {

using Contract = std::vector<Property>;
// A new one for each case: some of the broken ones remember.
using MakePolicyUnderTest = PolicyPtr (*)();

struct Control {
  MakePolicyUnderTest make;
  const char* property;
  const char* words;  // of what the property says
};

template <typename Policy>
Control Broken(const char* property, const char* words) {
  return {[]() -> PolicyPtr { return std::make_shared<const Policy>(); },
          property, words};
}

// What the contract says first of the policy; "none".
inline std::string FirstViolation(const Contract& contract,
                                  MakePolicyUnderTest make,
                                  absl::string_view property) {
  for (const Property& p : contract) {
    if (p.name != property) continue;
    for (uint32_t seed = 0; seed < 200; ++seed) {
      std::string violation = p.violation(make(), seed);
      if (!violation.empty()) return violation;
    }
  }
  return "none";
}

inline void ExpectFoundOut(const Contract& contract,
                           const std::vector<Control>& controls) {
  for (const Control& control : controls) {
    EXPECT_THAT(FirstViolation(contract, control.make, control.property),
                ::testing::HasSubstr(control.words))
        << control.property;
  }
}

inline void ExpectOneForEachPromise(const Contract& contract,
                                    const std::vector<Control>& controls) {
  std::set<std::string> promised, controlled;
  for (const Property& property : contract) promised.insert(property.name);
  for (const Control& control : controls) controlled.insert(control.property);
  EXPECT_EQ(controlled, promised);
}

// Else what the broken ones are found out for might not be what they break.
inline void ExpectEveryPromiseKept(const Contract& contract,
                                   MakePolicyUnderTest make) {
  for (const Property& property : contract) {
    EXPECT_EQ(FirstViolation(contract, make, property.name), "none")
        << property.name;
  }
}

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_CONTRACT_BROKEN_POLICY_H_
