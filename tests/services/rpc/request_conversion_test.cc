#include "services/rpc/request_conversion.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"
#include "tests/services/rpc/hundred_tokens.h"
#include "tests/services/rpc/parse_text.h"

namespace millrace::rpc {
namespace {

class RequestConversion : public ::testing::Test {
 protected:
  RequestConversion() {
    limits_.tokenizer = &tokenizer_;
    limits_.model_name = "tiny";
    limits_.features = {"fork"};
  }

  auto Open(const std::string& text) {
    return FromProto(Parse<v1::OpenSession>(text), limits_);
  }
  session::ClientMessage Message(const std::string& text) {
    return FromProto(Parse<v1::ConnectRequest>(text), limits_);
  }
  // "REASON field" of a refused message; empty for one that is taken.
  std::string Refusal(const std::string& text) {
    const session::ClientMessage message = Message(text);
    const auto* refused = std::get_if<session::Refused>(&message.body);
    return refused == nullptr ? "" : Fault(refused->status);
  }
  static std::string Fault(const absl::Status& status) {
    if (status.ok()) return "";
    return absl::StrCat(errors::ReasonOf(status), " ",
                        errors::DetailsOf(status).field);
  }

  testing::FakeTokenizer tokenizer_ = testing::HundredTokens();
  RequestLimits limits_;
};

TEST_F(RequestConversion, EmptyOpenTakesDefaults) {
  const auto open = Open("");
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(open->format, std::nullopt);
  EXPECT_EQ(open->system_prompt, std::nullopt);
  EXPECT_EQ(open->policy, std::nullopt);
  EXPECT_EQ(open->idle_timeout, absl::Minutes(30));
  EXPECT_EQ(open->detach_timeout, absl::Seconds(60));
  EXPECT_EQ(open->rollback_tokens, 256);
  EXPECT_EQ(open->generation.stopping.max_tokens, 1024u);
}

TEST_F(RequestConversion, OpenCarriesWhatItSays) {
  const auto open = Open(
      "format: FORMAT_PLAIN system_prompt: '' client_tag: 'me' rollback_tokens:"
      " 0 detach_timeout {} idle_timeout { seconds: 5 } model: 'tiny' "
      "cache_policy { window {} } sampling { temperature: 0 } "
      "required_features: 'fork'");
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(open->format, session::Format::kPlain);
  EXPECT_EQ(open->system_prompt, "");
  EXPECT_EQ(open->client_tag, "me");
  EXPECT_EQ(open->rollback_tokens, 0);
  EXPECT_EQ(open->detach_timeout, absl::ZeroDuration());
  EXPECT_EQ(open->idle_timeout, absl::Seconds(5));
  EXPECT_EQ(open->policy->name, "window");
  EXPECT_EQ(open->generation.sampling.temperature, 0);
}

TEST_F(RequestConversion, OpenThatCannotBeNamesItsField) {
  const std::string tag(129, 'x');
  std::string features;
  for (int i = 0; i < 65; ++i) features += "required_features: 'fork' ";
  const struct {
    std::string text;
    const char* fault;
  } cases[] = {
      {"format: FORMAT_UNSPECIFIED", ""},
      {"model: 'other'", "INVALID_FIELD model"},
      {"model: ''", "INVALID_FIELD model"},
      {"client_tag: '" + tag + "'", "INVALID_FIELD client_tag"},
      {"rollback_tokens: 8192", ""},
      {"rollback_tokens: 8193", "INVALID_FIELD rollback_tokens"},
      {"idle_timeout {}", "INVALID_FIELD idle_timeout"},
      {"idle_timeout { seconds: 1801 }", "INVALID_FIELD idle_timeout"},
      {"detach_timeout { seconds: 61 }", "INVALID_FIELD detach_timeout"},
      {"detach_timeout { seconds: -1 }", "INVALID_FIELD detach_timeout"},
      {"cache_policy {}", "INVALID_FIELD cache_policy"},
      {"sampling { top_p: 2 }", "INVALID_FIELD sampling.top_p"},
      {"stopping { max_tokens: 0 }", "INVALID_FIELD stopping.max_tokens"},
      {"response { logprobs: 99 }", "INVALID_FIELD response.logprobs"},
      {"required_features: 'teleport'", "FEATURE_MISSING required_features"},
      {features, "INVALID_FIELD required_features"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Fault(Open(c.text).status()), c.fault) << c.text;
  }
}

TEST_F(RequestConversion, UnknownEnumNumbersAreRefused) {
  v1::OpenSession open;
  open.set_format(static_cast<v1::Format>(77));
  EXPECT_EQ(Fault(FromProto(open, limits_).status()), "INVALID_FIELD format");
}

TEST_F(RequestConversion, InputsKeepTheirKindAndOrder) {
  const auto message = Message(
      "client_seq: 9 append { inputs { text: 'a' } inputs { token_ids { ids: 3 "
      "ids: 96 } } only_in_turn_started_by: 4 more_follows: true }");
  EXPECT_EQ(message.client_seq, 9u);
  const auto& append = std::get<session::AppendInput>(message.body);
  ASSERT_EQ(append.inputs.size(), 2u);
  EXPECT_EQ(std::get<session::TextInput>(append.inputs[0]).text, "a");
  EXPECT_EQ(std::get<std::vector<int32_t>>(append.inputs[1]),
            (std::vector<int32_t>{3, 96}));
  EXPECT_EQ(append.placement, std::nullopt);
  EXPECT_EQ(append.only_in_turn_started_by, 4u);
  EXPECT_TRUE(append.more_follows);
}

TEST_F(RequestConversion, PlacementsConvert) {
  const auto placement = [&](const std::string& text) {
    const auto message =
        Message("append { inputs { text: 'a' } " + text + " }");
    return *std::get<session::AppendInput>(message.body).placement;
  };
  EXPECT_TRUE(
      std::holds_alternative<session::NextStep>(placement("next_step {}")));
  EXPECT_TRUE(
      std::holds_alternative<session::AfterTurn>(placement("after_turn {}")));
  EXPECT_EQ(std::get<session::AtTextPosition>(placement("at_text_position: 0"))
                .position,
            0u);
}

TEST_F(RequestConversion, AppendThatCannotBeIsRefused) {
  limits_.max_pending_input_bytes = 10;
  const struct {
    const char* text;
    const char* fault;
  } cases[] = {
      {"append { inputs { text: '' } }", ""},
      {"append {}", "INVALID_FIELD inputs"},
      {"append { inputs {} }", "INVALID_FIELD inputs[0]"},
      {"append { inputs { text: 'x' } inputs { token_ids { ids: 3 ids: 100 } } "
       "}",
       "INVALID_FIELD inputs[1].token_ids.ids[1]"},
      {"append { inputs { token_ids { ids: 4294967295 } } }",
       "INVALID_FIELD inputs[0].token_ids.ids[0]"},
      {"append { inputs { token_ids { ids: 98 } } }",
       "INVALID_FIELD inputs[0].token_ids.ids[0]"},
      {"append { inputs { text_with_special_tokens: 'x' } }",
       "INVALID_FIELD inputs[0].text_with_special_tokens"},
      {"append { inputs { message { text: 'hi' } } }",
       "INVALID_FIELD inputs[0].message.role"},
      {"append { inputs { message { role: ROLE_USER } } }",
       "INVALID_FIELD inputs[0].message"},
      {"append { inputs { message { role: ROLE_USER text: 'hi' } } }", ""},
      {"append { inputs { text: 'a' } inputs { message { role: ROLE_USER text: "
       "'hi' } } }",
       "INVALID_FIELD placement"},
      {"append { inputs { text: 'a' } inputs { message { role: ROLE_USER text: "
       "'hi' } } after_turn {} }",
       ""},
      {"append { inputs { text: '0123456789' } }", ""},
      {"append { inputs { text: '0123456789a' } }", "INVALID_FIELD inputs"},
      {"append { inputs { text: 'a' } more_follows: true then_generate {} }",
       "INVALID_FIELD then_generate"},
      {"append { inputs { text: 'a' } then_generate { sampling { temperature: "
       "-1 } } }",
       "INVALID_FIELD then_generate.sampling.temperature"},
  };
  for (const auto& c : cases) EXPECT_EQ(Refusal(c.text), c.fault) << c.text;
}

TEST_F(RequestConversion, SpecialTokensAreTakenWhereTheServerAllowsThem) {
  limits_.allow_special_tokens = true;
  const auto message = Message(
      "append { inputs { token_ids { ids: 98 } } inputs { "
      "text_with_special_tokens: '<|im_end|>' } }");
  const auto& append = std::get<session::AppendInput>(message.body);
  EXPECT_TRUE(
      std::get<session::TextInput>(append.inputs[1]).parse_special_tokens);
}

TEST_F(RequestConversion, TurnsOverrideOnlyWhatIsPresent) {
  const auto message =
      Message("generate { stopping { max_tokens: 3 } new_message: true }");
  const auto& turn = std::get<session::StartTurn>(message.body);
  EXPECT_EQ(turn.sampling, std::nullopt);
  EXPECT_EQ(turn.stopping->max_tokens, 3u);
  EXPECT_TRUE(turn.new_message);
}

TEST_F(RequestConversion, OtherArmsConvert) {
  const auto interrupt =
      Message("interrupt { started_by: 2 keep_until_text_position: 40 }");
  EXPECT_EQ(std::get<session::Interrupt>(interrupt.body).started_by, 2u);
  EXPECT_EQ(
      std::get<session::Interrupt>(interrupt.body).keep_until_text_position,
      40u);
  EXPECT_TRUE(
      std::holds_alternative<session::ResetSession>(Message("reset {}").body));
  EXPECT_TRUE(
      std::holds_alternative<session::CloseSession>(Message("close {}").body));
  EXPECT_EQ(Refusal("update { sampling { min_p: 2 } }"),
            "INVALID_FIELD sampling.min_p");
  EXPECT_EQ(Refusal("generate { response { logprobs: 21 } }"),
            "INVALID_FIELD response.logprobs");
}

TEST_F(RequestConversion, UnknownArmIsRefusedAndKeepsItsNumber) {
  v1::ConnectRequest request;
  ASSERT_TRUE(request.ParseFromString("\x08\x07\xa2\x06\x01x"));
  const auto message = FromProto(request, limits_);
  EXPECT_EQ(message.client_seq, 7u);
  EXPECT_EQ(Fault(std::get<session::Refused>(message.body).status),
            "UNKNOWN_MESSAGE ");
}

TEST_F(RequestConversion, InvalidUtf8IsNoMessage) {
  v1::ConnectRequest request;
  // append { inputs { text: "\xff" } }
  EXPECT_FALSE(request.ParseFromString("\x22\x05\x0a\x03\x0a\x01\xff"));
  EXPECT_TRUE(request.ParseFromString("\x22\x05\x0a\x03\x0a\x01x"));
}

}  // namespace
}  // namespace millrace::rpc
