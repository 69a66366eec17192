#include "services/rpc/policy_conversion.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <set>

#include "services/errors/errors.h"
#include "services/rpc/info_conversion.h"
#include "tests/services/rpc/parse_text.h"

namespace millrace::rpc {
namespace {

using Options = std::vector<std::pair<std::string, std::string>>;

std::string Fault(const v1::CachePolicy& policy) {
  const auto converted = FromProto(policy, "cache_policy");
  return converted.ok() ? "" : errors::DetailsOf(converted.status()).field;
}

const google::protobuf::OneofDescriptor* Arms() {
  return v1::CachePolicy::descriptor()->FindOneofByName("policy");
}

// The registry and the message name the same policies and options.
TEST(PolicyConversion, EveryPolicyHasItsArmAndEveryOptionItsField) {
  for (const cache::PolicyInfo& info : cache::AllPolicies()) {
    const auto* arm = v1::CachePolicy::descriptor()->FindFieldByName(info.name);
    ASSERT_NE(arm, nullptr) << info.name;
    std::set<std::string> fields, options;
    for (int i = 0; i < arm->message_type()->field_count(); ++i) {
      fields.insert(arm->message_type()->field(i)->name());
    }
    for (const auto& option : info.options) options.insert(option.name);
    EXPECT_EQ(fields, options) << info.name;
  }
}

TEST(PolicyConversion, EveryArmIsAPolicy) {
  std::set<std::string> known;
  for (const auto& info : cache::AllPolicies()) known.insert(info.name);
  for (int i = 0; i < Arms()->field_count(); ++i) {
    EXPECT_TRUE(known.contains(Arms()->field(i)->name()))
        << Arms()->field(i)->name();
  }
}

TEST(PolicyConversion, NamesAndValuesAreThoseOfTheTextForm) {
  const auto sinks =
      FromProto(Parse<v1::CachePolicy>("sinks { sink_tokens: 0 window_tokens: "
                                       "60 pin_system_prompt: false }"),
                "cache_policy");
  ASSERT_TRUE(sinks.ok());
  EXPECT_EQ(sinks->name, "sinks");
  EXPECT_EQ(sinks->options, (Options{{"sink_tokens", "0"},
                                     {"window_tokens", "60"},
                                     {"pin_system_prompt", "false"}}));
  const auto full = FromProto(
      Parse<v1::CachePolicy>("full { max_tokens: 10 on_full: ON_FULL_ERROR }"),
      "cache_policy");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->options,
            (Options{{"max_tokens", "10"}, {"on_full", "error"}}));
}

TEST(PolicyConversion, UnsetOptionsAreAbsent) {
  const auto policy =
      FromProto(Parse<v1::CachePolicy>("full { on_full: ON_FULL_UNSPECIFIED }"),
                "cache_policy");
  ASSERT_TRUE(policy.ok());
  EXPECT_EQ(policy->options, Options{});
}

TEST(PolicyConversion, PolicyThatIsUnsetIsRefused) {
  EXPECT_EQ(Fault(v1::CachePolicy()), "cache_policy");
}

TEST(PolicyConversion, PolicyOfANewerClientIsRefused) {
  v1::CachePolicy policy;
  ASSERT_TRUE(policy.ParseFromString("\xa2\x06\x01x"));  // field 100, "x"
  EXPECT_EQ(Fault(policy), "cache_policy");
}

TEST(PolicyConversion, OptionOfANewerClientIsRefused) {
  v1::CachePolicy policy;
  ASSERT_TRUE(policy.mutable_window()->ParseFromString("\xa0\x06\x01"));
  EXPECT_EQ(Fault(policy), "cache_policy.window");
}

TEST(PolicyConversion, TextFormsComeBack) {
  for (const char* text :
       {"full:max_tokens=99,on_full=error,allow_beyond_trained_context=true",
        "window:window_tokens=7",
        "sinks:sink_tokens=4,window_tokens=1020,"
        "pin_system_prompt=true,pin_tokens=0"}) {
    const v1::CachePolicy message = PolicyFromText(text);
    const auto config = FromProto(message, "cache_policy");
    ASSERT_TRUE(config.ok()) << text;
    EXPECT_EQ(*config, *cache::ParsePolicy(text)) << text;
  }
}

TEST(PolicyConversion, ValueThatNoFieldHoldsIsAnError) {
  EXPECT_FALSE(ToProto({"sinks", {{"sink_tokens", "-1"}}}).ok());
  EXPECT_FALSE(ToProto({"sinks", {{"no_option", "1"}}}).ok());
  EXPECT_FALSE(ToProto({"full", {{"on_full", "unspecified_not"}}}).ok());
  EXPECT_FALSE(ToProto({"lru", {}}).ok());
}

TEST(PolicyConversion, InfosNameTypesAndLowestValues) {
  for (const v1::PolicyInfo& info : ToPolicyInfos(/*has_sink_token=*/false)) {
    if (info.name() != "sinks") continue;
    const v1::PolicyOption& sinks = info.options(0);
    EXPECT_EQ(sinks.name(), "sink_tokens");
    EXPECT_EQ(sinks.type(), v1::OPTION_TYPE_NUMBER);
    EXPECT_EQ(sinks.default_value(), "4");
    EXPECT_EQ(sinks.minimum(), 0u);
    EXPECT_EQ(info.options(1).default_value(), "");  // depends on the model
    return;
  }
  FAIL() << "no sinks";
}

TEST(PolicyConversion, InfosNameTheDefaultsOfAModelWithASinkToken) {
  for (const v1::PolicyInfo& info : ToPolicyInfos(/*has_sink_token=*/true)) {
    if (info.name() != "sinks") continue;
    EXPECT_EQ(info.options(0).default_value(), "1");
    EXPECT_EQ(info.options(0).description(),
              "tokens kept from the start of the text (0 to trained context - "
              "2; default: 1)");
    return;
  }
  FAIL() << "no sinks";
}

}  // namespace
}  // namespace millrace::rpc
