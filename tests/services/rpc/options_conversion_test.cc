#include "services/rpc/options_conversion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "services/errors/errors.h"
#include "tests/services/rpc/hundred_tokens.h"
#include "tests/services/rpc/parse_text.h"

namespace millrace::rpc {
namespace {

using ::testing::HasSubstr;

class OptionsConversion : public ::testing::Test {
 protected:
  OptionsConversion() { limits_.tokenizer = &tokenizer_; }

  auto Sampling(const std::string& text) {
    return FromProto(Parse<v1::SamplingParams>(text), limits_, "sampling");
  }
  auto Stopping(const std::string& text) {
    return FromProto(Parse<v1::StoppingOptions>(text), limits_, "stopping");
  }
  auto Response(const std::string& text) {
    return FromProto(Parse<v1::ResponseOptions>(text), limits_, "response");
  }

  // The field at fault; empty if nothing is.
  template <typename T>
  std::string Fault(const absl::StatusOr<T>& converted) {
    if (converted.ok()) return "";
    EXPECT_TRUE(
        errors::HasReason(converted.status(), errors::Reason::kInvalidField));
    EXPECT_TRUE(absl::IsInvalidArgument(converted.status()));
    return errors::DetailsOf(converted.status()).field;
  }

  testing::FakeTokenizer tokenizer_ = testing::HundredTokens();
  RequestLimits limits_;
};

TEST_F(OptionsConversion, UnsetSamplingIsTheDefault) {
  const auto options = Sampling("");
  ASSERT_TRUE(options.ok());
  EXPECT_FLOAT_EQ(options->temperature, 0.7f);
  EXPECT_EQ(options->top_k, 0);
  EXPECT_FLOAT_EQ(options->top_p, 0.95f);
  EXPECT_FLOAT_EQ(options->min_p, 0.05f);
  EXPECT_EQ(options->repetition_penalty, 1);
  EXPECT_EQ(options->penalty_window_tokens, 256);
}

TEST_F(OptionsConversion, ZeroIsNotUnset) {
  const auto options =
      Sampling("temperature: 0 min_p: 0 penalty_window_tokens: 0 seed: 0");
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->temperature, 0);
  EXPECT_EQ(options->min_p, 0);
  EXPECT_EQ(options->penalty_window_tokens, 0);
  EXPECT_EQ(options->seed, 0u);
}

TEST_F(OptionsConversion, UnsetSeedsDiffer) {
  EXPECT_NE(Sampling("")->seed, Sampling("")->seed);
}

TEST_F(OptionsConversion, SamplingRangesAreHeld) {
  const struct {
    const char* text;
    const char* fault;  // empty: just in range
  } cases[] = {
      {"temperature: 100", ""},
      {"temperature: 100.1", "sampling.temperature"},
      {"temperature: -0.1", "sampling.temperature"},
      {"temperature: nan", "sampling.temperature"},
      {"temperature: inf", "sampling.temperature"},
      {"top_p: 1", ""},
      {"top_p: 0", "sampling.top_p"},
      {"top_p: 1.01", "sampling.top_p"},
      {"top_p: nan", "sampling.top_p"},
      {"min_p: 1", ""},
      {"min_p: -0.01", "sampling.min_p"},
      {"min_p: nan", "sampling.min_p"},
      {"repetition_penalty: 10", ""},
      {"repetition_penalty: 0", "sampling.repetition_penalty"},
      {"repetition_penalty: nan", "sampling.repetition_penalty"},
      {"presence_penalty: -2", ""},
      {"presence_penalty: 2.1", "sampling.presence_penalty"},
      {"frequency_penalty: -2.1", "sampling.frequency_penalty"},
      {"frequency_penalty: -inf", "sampling.frequency_penalty"},
      {"penalty_window_tokens: 8192", ""},
      {"penalty_window_tokens: 8193", "sampling.penalty_window_tokens"},
      {"penalty_window_tokens: 4294967295", "sampling.penalty_window_tokens"},
      {"top_k: 4294967295", ""},
      {"logit_bias { token_id: 99 bias: -100 }", ""},
      {"logit_bias { token_id: 100 }", "sampling.logit_bias[0].token_id"},
      {"logit_bias { token_id: 1 } logit_bias { token_id: 2 bias: 101 }",
       "sampling.logit_bias[1].bias"},
      {"logit_bias { token_id: 1 bias: nan }", "sampling.logit_bias[0].bias"},
      {"logit_bias { token_id: 5 } logit_bias { token_id: 5 }",
       "sampling.logit_bias[1].token_id"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Fault(Sampling(c.text)), c.fault) << c.text;
  }
}

TEST_F(OptionsConversion, SpeculationIsTheServersWhereTheClientNamesNone) {
  for (const auto by_default :
       {engine::Speculation::kNone, engine::Speculation::kNgram}) {
    limits_.speculation = by_default;
    EXPECT_EQ(Sampling("")->speculation, by_default);
    EXPECT_EQ(Sampling("speculation: SPECULATION_NONE")->speculation,
              engine::Speculation::kNone);
    EXPECT_EQ(Sampling("speculation: SPECULATION_NGRAM")->speculation,
              engine::Speculation::kNgram);
  }
}

TEST_F(OptionsConversion, AnUnknownSpeculationIsRefused) {
  v1::SamplingParams params;
  params.set_speculation(static_cast<v1::Speculation>(3));
  EXPECT_EQ(Fault(FromProto(params, limits_, "sampling")),
            "sampling.speculation");
}

TEST_F(OptionsConversion, ListsAreBounded) {
  limits_.max_logit_bias = 1;
  EXPECT_EQ(
      Fault(Sampling("logit_bias { token_id: 1 } logit_bias { token_id: 2 }")),
      "sampling.logit_bias");
  limits_.max_stop_strings = 1;
  EXPECT_EQ(Fault(Stopping("stop_strings: 'a' stop_strings: 'b'")),
            "stopping.stop_strings");
}

TEST_F(OptionsConversion, UnsetStoppingIsTheServersDefault) {
  limits_.default_turn_tokens = 77;
  limits_.max_turn_duration = absl::Minutes(3);
  const auto options = Stopping("");
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->max_tokens, 77u);
  EXPECT_EQ(options->time_limit, absl::Minutes(3));
  EXPECT_EQ(options->repetition_guard, 512);
}

TEST_F(OptionsConversion, UnlimitedIsNoBudget) {
  EXPECT_EQ(Stopping("unlimited {}")->max_tokens, std::nullopt);
  limits_.max_turn_tokens = 100;
  EXPECT_EQ(Fault(Stopping("unlimited {}")), "stopping.unlimited");
}

TEST_F(OptionsConversion, DefaultBudgetStaysUnderTheCap) {
  limits_.max_turn_tokens = 100;
  EXPECT_EQ(Stopping("")->max_tokens, 100u);
  EXPECT_EQ(Fault(Stopping("max_tokens: 101")), "stopping.max_tokens");
}

TEST_F(OptionsConversion, StoppingRangesAreHeld) {
  limits_.max_turn_duration = absl::Seconds(60);
  const std::string long_stop(257, 'x');
  const struct {
    std::string text;
    const char* fault;
  } cases[] = {
      {"max_tokens: 1", ""},
      {"max_tokens: 0", "stopping.max_tokens"},
      {"max_tokens: 18446744073709551615", ""},
      {"min_tokens: 1024", ""},
      {"min_tokens: 1025", "stopping.min_tokens"},
      {"min_tokens: 5 max_tokens: 4", "stopping.min_tokens"},
      {"min_tokens: 18446744073709551615 unlimited {}", ""},
      {"stop_strings: ''", "stopping.stop_strings[0]"},
      {"stop_strings: 'a' stop_strings: '" + long_stop + "'",
       "stopping.stop_strings[1]"},
      {"stop_token_ids: 99", ""},
      {"stop_token_ids: 100", "stopping.stop_token_ids[0]"},
      {"time_limit { seconds: 60 }", ""},
      {"time_limit { seconds: 61 }", "stopping.time_limit"},
      {"time_limit { }", "stopping.time_limit"},
      {"time_limit { seconds: -1 }", "stopping.time_limit"},
      {"time_limit { seconds: 1 nanos: -1 }", "stopping.time_limit"},
      {"time_limit { nanos: 1000000000 }", "stopping.time_limit"},
      {"time_limit { seconds: 9223372036854775807 }", "stopping.time_limit"},
      {"repetition_guard: 0", ""},
      {"repetition_guard: 3", "stopping.repetition_guard"},
      {"repetition_guard: 4", ""},
      {"repetition_guard: 8193", "stopping.repetition_guard"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Fault(Stopping(c.text)), c.fault) << c.text;
  }
}

TEST_F(OptionsConversion, NoLogprobsAndThoseOfTheTokenAloneDiffer) {
  EXPECT_EQ(Response("")->logprobs, -1);
  EXPECT_EQ(Response("logprobs: 0")->logprobs, 0);
  EXPECT_EQ(Fault(Response("logprobs: 21")), "response.logprobs");
  EXPECT_EQ(Fault(Response("cache_update_interval_tokens: 0")),
            "response.cache_update_interval_tokens");
}

TEST_F(OptionsConversion, MessagesNameTheValueAndTheRange) {
  EXPECT_THAT(std::string(Sampling("temperature: 101").status().message()),
              HasSubstr("sampling.temperature=101 is not from 0 to 100"));
}

TEST_F(OptionsConversion, EffectiveOptionsHaveEveryFieldSet) {
  engine::GenerationOptions options;
  options.sampling.seed = 5;
  options.stopping.max_tokens.reset();
  const v1::EffectiveOptions effective =
      ToProto(options, "sinks:sink_tokens=4,window_tokens=60", "tiny");
  EXPECT_EQ(effective.model(), "tiny");
  EXPECT_EQ(effective.cache_policy().sinks().window_tokens(), 60u);
  EXPECT_TRUE(effective.sampling().has_temperature());
  EXPECT_EQ(effective.sampling().seed(), 5u);
  EXPECT_TRUE(effective.stopping().has_unlimited());
  EXPECT_FALSE(effective.stopping().has_time_limit());
  EXPECT_FALSE(effective.response().has_logprobs());
  EXPECT_TRUE(effective.response().text());
}

// What comes back can be sent again and means the same.
TEST_F(OptionsConversion, EffectiveOptionsConvertBack) {
  const auto sampling = Sampling(
      "temperature: 0.5 top_k: 40 seed: 9 speculation: SPECULATION_NGRAM "
      "logit_bias { token_id: 7 bias: 2 }");
  const auto stopping =
      Stopping("max_tokens: 9 stop_strings: 'END' time_limit { seconds: 2 }");
  ASSERT_TRUE(sampling.ok() && stopping.ok());
  const v1::EffectiveOptions out =
      ToProto({*sampling, *stopping, *Response("logprobs: 3")}, "full", "m");
  const auto again = FromProto(out.sampling(), limits_, "sampling");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->top_k, 40);
  EXPECT_EQ(again->seed, 9u);
  EXPECT_EQ(again->speculation, engine::Speculation::kNgram);
  EXPECT_EQ(again->logit_bias, sampling->logit_bias);
  EXPECT_EQ(FromProto(out.stopping(), limits_, "stopping")->time_limit,
            absl::Seconds(2));
  EXPECT_EQ(FromProto(out.response(), limits_, "response")->logprobs, 3);
}

}  // namespace
}  // namespace millrace::rpc
