// Every policy keeps every promise of CachePolicy, in thousands of random
// cases.
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <set>
#include <string>
#include <tuple>

#include "cache/policies/registry.h"
#include "tests/cache/contract/policies_under_test.h"
#include "tests/cache/contract/properties.h"

namespace millrace::cache {
namespace {

// Of each promise and form. Heads that choose for themselves take longer.
uint32_t Cases(const CachePolicy& policy) {
  if (std::getenv("MILLRACE_FULL") == nullptr) return 200;
  return policy.scoring() == nullptr ? 2000 : 500;
}

PolicyContext Context(int64_t pinned_tokens = 0) {
  return {.trained_context = 8192,
          .pinned_tokens = pinned_tokens,
          .max_resident_tokens = 100'000,
          .extra_tokens = 100};
}

MadePolicy Made(const std::string& text, const PolicyContext& context) {
  return MakePolicy(ParsePolicy(text).value(), context).value();
}

std::vector<std::string> AllTexts() {
  std::vector<std::string> all;
  for (const PolicyUnderTest& policy : PoliciesUnderTest()) {
    all.insert(all.end(), policy.texts.begin(), policy.texts.end());
  }
  return all;
}

using Param = std::tuple<std::string, Property>;

// Every form of every policy, with each promise that it makes.
std::vector<Param> AllPromises() {
  std::vector<Param> all;
  for (const std::string& text : AllTexts()) {
    for (const Property& property : ContractOf(*Made(text, Context()).policy)) {
      all.emplace_back(text, property);
    }
  }
  return all;
}

class PolicyContractTest : public ::testing::TestWithParam<Param> {};

TEST_P(PolicyContractTest, IsKept) {
  const auto& [text, property] = GetParam();
  const PolicyPtr policy = Made(text, Context()).policy;
  for (uint32_t seed = 0; seed < Cases(*policy); ++seed) {
    ASSERT_EQ(property.violation(policy, seed), "") << "seed " << seed;
  }
}

std::string TestName(const ::testing::TestParamInfo<Param>& info) {
  std::string name =
      std::get<0>(info.param) + "_" + std::get<1>(info.param).name;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, PolicyContractTest,
                         ::testing::ValuesIn(AllPromises()), TestName);

TEST(PoliciesUnderTestTest, AreThoseOfTheRegistry) {
  std::set<std::string> held, registered;
  for (const auto& policy : PoliciesUnderTest()) {
    held.insert(policy.name);
    for (const std::string& text : policy.texts) {
      EXPECT_EQ(Made(text, Context()).policy->Name(), policy.name);
    }
  }
  for (const auto& info : AllPolicies()) registered.insert(info.name);
  EXPECT_EQ(held, registered);
}

TEST(CanonicalTextTest, GivesTheSamePolicyUnderTheSamePinnedPrompt) {
  for (const std::string& text : AllTexts()) {
    for (const int64_t pinned : {0, 3, 100}) {
      const MadePolicy made = Made(text, Context(pinned));
      const MadePolicy again = Made(made.text, Context(pinned));
      EXPECT_EQ(again.text, made.text);
      EXPECT_EQ(again.on_full, made.on_full);
      EXPECT_EQ(again.policy->ToString(), made.policy->ToString());
      EXPECT_EQ(again.policy->Rules(5000), made.policy->Rules(5000));
    }
  }
}

}  // namespace
}  // namespace millrace::cache
