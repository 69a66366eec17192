#include "clients/cli/policy_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace::cli {
namespace {

using ::testing::HasSubstr;

TEST(PolicyText, NameAloneSetsTheArmWithoutOptions) {
  const auto policy = ParsePolicy("sinks");
  ASSERT_TRUE(policy.ok());
  EXPECT_TRUE(policy->has_sinks());
  EXPECT_FALSE(policy->sinks().has_window_tokens());
}

TEST(PolicyText, OptionsAreFieldsOfEveryKind) {
  const auto sinks = ParsePolicy(
      "sinks:sink_tokens=4,window_tokens=1020,"
      "pin_system_prompt=false");
  ASSERT_TRUE(sinks.ok());
  EXPECT_EQ(sinks->sinks().sink_tokens(), 4u);
  EXPECT_EQ(sinks->sinks().window_tokens(), 1020u);
  EXPECT_TRUE(sinks->sinks().has_pin_system_prompt());
  EXPECT_FALSE(sinks->sinks().pin_system_prompt());
  const auto full = ParsePolicy("full:on_full=error");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->full().on_full(), v1::ON_FULL_ERROR);
}

TEST(PolicyText, WhatWasParsedIsPrintedAlike) {
  for (const char* text :
       {"window:window_tokens=256", "full:max_tokens=8192,on_full=stop",
        "sinks:sink_tokens=1,window_tokens=63,pin_system_prompt=true",
        "full"}) {
    const auto policy = ParsePolicy(text);
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_EQ(PolicyText(*policy), text);
  }
}

TEST(PolicyText, NoPolicyIsNoText) {
  EXPECT_EQ(PolicyText(v1::CachePolicy()), "");
}

struct BadText {
  const char* text;
  const char* says;
};

TEST(PolicyText, WhatIsWrongIsNamed) {
  for (const BadText& bad : {
           BadText{"sink", "unknown cache policy 'sink'; there are full"},
           BadText{"", "unknown cache policy ''"},
           BadText{"sinks:", "has no option ''"},
           BadText{"sinks:sinks=4", "its options: sink_tokens, window_tokens"},
           BadText{"sinks:sink_tokens", "sink_tokens=: not a number"},
           BadText{"sinks:sink_tokens=-1", "sink_tokens=-1: not a number"},
           BadText{"sinks:pin_system_prompt=1", "neither true nor false"},
           BadText{"full:on_full=never", "on_full=never: no such choice"},
       }) {
    const auto policy = ParsePolicy(bad.text);
    ASSERT_FALSE(policy.ok()) << bad.text;
    EXPECT_THAT(policy.status().message(), HasSubstr(bad.says));
  }
}

}  // namespace
}  // namespace millrace::cli
