#include "cache/policies/registry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cache/policies/policy_definition.h"

namespace millrace::cache {
namespace {

// A model of 8,192 tokens on a server with memory to spare.
constexpr PolicyContext kRoomy{.trained_context = 8192,
                               .pinned_tokens = 0,
                               .max_resident_tokens = 100'000,
                               .extra_tokens = 320};

absl::StatusOr<MadePolicy> Make(const char* text,
                                const PolicyContext& context = kRoomy) {
  const auto config = ParsePolicy(text);
  if (!config.ok()) return config.status();
  return MakePolicy(*config, context);
}

std::string Text(const char* text, const PolicyContext& context = kRoomy) {
  const auto made = Make(text, context);
  return made.ok() ? made->text : std::string(made.status().message());
}

TEST(RegistryTest, DefaultsAreThoseOfTheProto) {
  EXPECT_EQ(Text("full"),
            "full:max_tokens=8192,allow_beyond_trained_context=false,"
            "on_full=stop");
  EXPECT_EQ(Text("window"), "window:window_tokens=1024");
  // 4 + 2043 + the token itself: a cache of 2,048.
  EXPECT_EQ(Text("sinks"),
            "sinks:sink_tokens=4,window_tokens=2043,pin_system_prompt=true,"
            "pin_tokens=0");
}

TEST(RegistryTest, TheDefaultCacheIsHalfOfAShortTrainedContext) {
  PolicyContext context = kRoomy;
  context.trained_context = 512;
  EXPECT_EQ(Make("sinks", context)->window_tokens, 256 - 4 - 1);
}

TEST(RegistryTest, DefaultsShrinkToTheMemoryLimit) {
  PolicyContext context = kRoomy;
  context.max_resident_tokens = 1000;
  EXPECT_EQ(Make("sinks", context)->window_tokens, 1000 - 320 - 4);
  EXPECT_EQ(Make("full", context)->policy->MaxResidentTokens(1), 1000);
}

TEST(RegistryTest, ThePinnedPromptTakesTheSinksPlace) {
  PolicyContext context = kRoomy;
  context.pinned_tokens = 100;
  EXPECT_EQ(Make("sinks", context)->sink_tokens, 100);
  EXPECT_EQ(Make("sinks:pin_system_prompt=false", context)->sink_tokens, 4);
  EXPECT_EQ(Make("sinks:pin_tokens=150", context)->sink_tokens, 150);
}

TEST(RegistryTest, AModelWithASinkTokenKeepsThatOneUnlessTold) {
  PolicyContext context = kRoomy;
  context.has_sink_token = true;
  constexpr char kPins[] = ",pin_system_prompt=true,pin_tokens=";
  // 1 + 2046 + the token itself: a cache of 2,048.
  EXPECT_EQ(Text("sinks", context),
            absl::StrCat("sinks:sink_tokens=1,window_tokens=2046", kPins, 0));
  // (1024 - 1) / 2 tokens are dropped at once.
  EXPECT_EQ(Text("shift", context),
            absl::StrCat("shift:context_tokens=1024,n_keep=1,n_discard=511",
                         kPins, 0));
  EXPECT_EQ(
      Text("reprefill", context),
      absl::StrCat("reprefill:window_tokens=1024,rebuild_every=512", kPins, 1));
  EXPECT_EQ(Text("window", context), Text("window"));
  EXPECT_EQ(Make("sinks:sink_tokens=0", context)->sink_tokens, 0);
  EXPECT_EQ(Make("shift:n_keep=5", context)->sink_tokens, 5);
  EXPECT_EQ(Make("reprefill:pin_tokens=0", context)->sink_tokens, 0);
}

TEST(RegistryTest, DescriptionsSayTheDefaultOfAModelWithASinkToken) {
  std::vector<std::string> other;
  for (const PolicyInfo& policy : AllPolicies()) {
    for (const PolicyOptionInfo& option : policy.options) {
      if (option.default_with_sink_token.empty()) continue;
      other.push_back(absl::StrCat(policy.name, ".", option.name, "=",
                                   option.default_with_sink_token));
    }
  }
  for (const char* known :
       {"sinks.sink_tokens=1", "reprefill.pin_tokens=1", "shift.n_keep=1"}) {
    EXPECT_EQ(std::count(other.begin(), other.end(), known), 1) << known;
  }
}

TEST(RegistryTest, TheCanonicalTextParsesBackToItself) {
  for (const char* text :
       {"full", "full:on_full=error,max_tokens=7", "window:window_tokens=1",
        "sinks", "sinks:pin_tokens=9,sink_tokens=0,window_tokens=60"}) {
    const std::string canonical = Text(text);
    EXPECT_EQ(Text(canonical.c_str()), canonical) << text;
  }
}

TEST(RegistryTest, BadTextIsRefusedAndNamesTheField) {
  struct Case {
    const char *text, *field, *message;
  };
  for (const Case& c : {
           Case{"", "name", "unknown cache policy ''"},
           Case{"lru", "name",
                "there are full, window, sinks, reprefill, shift, tova, h2o, "
                "snapkv"},
           Case{"sinks:", "options",
                "cache policy 'sinks': '' is not OPTION=VALUE; ':' is followed "
                "by one or more"},
           Case{"sinks:sink_tokens=4,", "options", "is not OPTION=VALUE"},
           Case{"sinks:sink_tokens", "sink_tokens", "is not OPTION=VALUE"},
           Case{"window:sink_tokens=4", "sink_tokens", "has no option"},
           Case{"window:window_tokens=1,window_tokens=1", "window_tokens",
                "more than once"},
           Case{"window:window_tokens=-1", "window_tokens", "not a number"},
           Case{"window:window_tokens=4294967296", "window_tokens",
                "not a number"},
           Case{"window:window_tokens=0", "window_tokens", "1 or more"},
           Case{"window:window_tokens=8192", "window_tokens", "8192"},
           Case{"sinks:window_tokens=8188", "window_tokens",
                "sink_tokens=4 + 1 exceeds the model's trained context of "
                "8192"},
           Case{"sinks:pin_system_prompt=yes", "pin_system_prompt",
                "must be false or true"},
           Case{"full:on_full=evict", "on_full", "must be stop or error"},
           Case{"full:max_tokens=8193", "max_tokens", "8193 exceeds"},
           Case{"full:max_tokens=0", "max_tokens", "1 or more"},
       }) {
    const absl::Status status = Make(c.text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_TRUE(absl::StrContains(status.message(), c.message)) << status;
    EXPECT_EQ(status.GetPayload("millrace/reason"), "INVALID_CACHE_POLICY");
    EXPECT_EQ(status.GetPayload("millrace/field"), c.field) << c.text;
  }
}

TEST(RegistryTest, WhatDoesNotFitTheMemoryIsRefusedNotTrimmed) {
  PolicyContext context = kRoomy;
  context.max_resident_tokens = 1000;
  for (const char* text : {"window:window_tokens=681", "full:max_tokens=1001",
                           "sinks:window_tokens=677"}) {
    const absl::Status status = Make(text, context).status();
    EXPECT_TRUE(absl::StrContains(status.message(), "1001")) << status;
  }
  EXPECT_TRUE(Make("window:window_tokens=680", context).ok());
}

TEST(RegistryTest, AnErrorQuotesSixtyFourBytesOfWhatWasWritten) {
  const std::string name(64, 'x'), longer(1 << 20, 'x');
  EXPECT_EQ(
      ParsePolicy(name).status().message(),
      "unknown cache policy '" + name +
          "'; there are full, window, sinks, reprefill, shift, tova, h2o, "
          "snapkv");
  EXPECT_EQ(
      ParsePolicy(longer).status().message(),
      "unknown cache policy '" + name +
          "...'; there are full, window, sinks, reprefill, shift, tova, h2o, "
          "snapkv");
  for (const std::string& text :
       {"sinks:" + longer, "sinks:" + longer + "=1",
        "sinks:sink_tokens=" + longer, "full:on_full=" + longer,
        "sinks:" + std::string(1 << 20, ',')}) {
    const absl::Status status = Make(text.c_str()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_LE(status.message().size(), 250u);
    EXPECT_LE(status.GetPayload("millrace/field")->size(), 67u);
  }
}

TEST(RegistryTest, AQuoteEndsBetweenCharactersAndShowsControlsEscaped) {
  const std::string x(63, 'x');
  EXPECT_EQ(Excerpt(x + "\u00e9"), x + "...");  // bytes 64 and 65
  EXPECT_EQ(Excerpt(x.substr(1) + "\u00e9"), x.substr(1) + "\u00e9");
  EXPECT_EQ(Excerpt("a\nb"), "a\\nb");
  EXPECT_EQ(Excerpt(std::string(100, '\x80')).size(), 61u + 3);
}

TEST(RegistryTest, WithoutRoomForAWindowTheDefaultNamesTheNumbers) {
  PolicyContext context = kRoomy;
  context.pinned_tokens = 2047;
  EXPECT_EQ(Make("sinks", context).status().message(),
            "the default cache leaves no window beside the 2047 tokens kept "
            "from the start, in a trained context of 8192 and a session of at "
            "most 100000 tokens; give window_tokens, or keep fewer");
  context.pinned_tokens = 2046;
  EXPECT_EQ(Make("sinks", context)->window_tokens, 1);
}

}  // namespace
}  // namespace millrace::cache
