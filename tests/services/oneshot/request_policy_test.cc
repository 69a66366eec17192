#include "services/oneshot/request_policy.h"

#include <gtest/gtest.h>

#include "services/errors/errors.h"

namespace millrace::oneshot {
namespace {

constexpr cache::PolicyContext kContext = {
    .trained_context = 8192, .max_resident_tokens = 5000, .extra_tokens = 64};

TEST(RequestPolicy, FullReservesPromptAndAllowedOutput) {
  const auto made = MakeRequestPolicy(std::nullopt, 20 + 1024, 0, kContext);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->policy->Name(), "full");
  EXPECT_EQ(made->policy->MaxTextTokens(), 1044);
}

TEST(RequestPolicy, FullStaysWithinMemory) {
  const auto made = MakeRequestPolicy(std::nullopt, 1'000'000, 0, kContext);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->policy->MaxTextTokens(), 5000);
}

TEST(RequestPolicy, WhatIsAskedForIsNotChanged) {
  const auto made = MakeRequestPolicy(
      cache::PolicyConfig{"full", {{"max_tokens", "7"}}}, 100, 0, kContext);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->policy->MaxTextTokens(), 7);
}

TEST(RequestPolicy, PoliciesThatEvictHaveNoTextLimit) {
  const auto made =
      MakeRequestPolicy(cache::PolicyConfig{"sinks", {}}, 10, 0, kContext);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->policy->MaxTextTokens(), cache::kUnlimited);
}

TEST(RequestPolicy, AModelWithASinkTokenKeepsThatOneUnlessTold) {
  cache::PolicyContext context = kContext;
  context.has_sink_token = true;
  const auto sinks = [&](const std::string& text) {
    return MakeRequestPolicy(*cache::ParsePolicy(text), 10, 0, context)
        ->sink_tokens;
  };
  EXPECT_EQ(sinks("sinks:window_tokens=60"), 1);
  EXPECT_EQ(sinks("sinks:window_tokens=60,sink_tokens=3"), 3);
}

TEST(RequestPolicy, FaultsNameThePathOfTheOption) {
  const auto made = MakeRequestPolicy(
      cache::PolicyConfig{"sinks", {{"window_tokens", "0"}}}, 10, 0, kContext);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(errors::DetailsOf(made.status()).field,
            "cache_policy.sinks.window_tokens");
  EXPECT_TRUE(
      errors::HasReason(made.status(), errors::Reason::kInvalidCachePolicy));
}

}  // namespace
}  // namespace millrace::oneshot
