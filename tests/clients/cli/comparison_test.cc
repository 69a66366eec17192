#include "clients/cli/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "clients/cli/comparison_plot.h"
#include "clients/cli/comparison_report.h"

namespace millrace::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

v1::ScoreResponse Chunk(uint64_t first, int values) {
  v1::ScoreResponse event;
  event.mutable_chunk()->set_first_position(first);
  for (int i = 0; i < values; ++i) {
    event.mutable_chunk()->add_log_likelihoods(-1);
  }
  return event;
}

v1::ScoreResponse Update(uint64_t position, uint64_t visible) {
  v1::ScoreResponse event;
  v1::CacheUpdate& update = *event.mutable_cache_update();
  update.set_text_position(position);
  update.set_visible_tokens(visible);
  update.set_total_evicted_tokens(position - visible);
  return event;
}

v1::ScoreResponse Finished(uint64_t position, uint64_t visible) {
  v1::ScoreResponse event;
  v1::Usage& usage = *event.mutable_finished()->mutable_usage();
  usage.set_text_position(position);
  usage.set_visible_tokens(visible);
  return event;
}

TEST(VisibleTrace, GrowsWithTheTextUntilTheFirstEviction) {
  VisibleTrace trace;
  trace.Note(Chunk(1, 63));
  trace.Note(Chunk(64, 64));
  trace.Note(Update(128, 100));
  trace.Note(Chunk(128, 64));
  trace.Note(Update(192, 100));
  trace.Note(Finished(192, 100));
  EXPECT_EQ(trace.At(0), 0u);
  EXPECT_EQ(trace.At(10), 10u);
  EXPECT_EQ(trace.At(64), 64u);
  EXPECT_EQ(trace.At(128), 100u);
  EXPECT_EQ(trace.At(150), 100u);
  EXPECT_EQ(trace.At(1000), 100u);
}

TEST(VisibleTrace, GrowsAgainAfterManyWereDroppedAtOnce) {
  VisibleTrace trace;
  trace.Note(Chunk(1, 99));
  trace.Note(Update(100, 50));  // 50 dropped
  trace.Note(Chunk(100, 20));
  trace.Note(Chunk(120, 20));
  trace.Note(Finished(140, 90));
  EXPECT_EQ(trace.points()[2].position, 119u);
  EXPECT_EQ(trace.points()[2].visible, 69u);
  EXPECT_EQ(trace.At(120), 70u);
  EXPECT_EQ(trace.At(140), 90u);
}

TEST(BucketTokens, MakesAtMostTwentyFourBuckets) {
  EXPECT_EQ(BucketTokens(0), 64u);
  EXPECT_EQ(BucketTokens(64 * 24), 64u);
  EXPECT_EQ(BucketTokens(64 * 24 + 1), 128u);
  EXPECT_EQ(BucketTokens(4096), 256u);
  EXPECT_EQ(BucketTokens(12000), 512u);
}

// Five tokens, of which the last four have 1, 2, 3, 4 nats.
Comparison FiveTokens() {
  Comparison comparison;
  comparison.text_name = "it's.txt";
  comparison.model = "tiny";
  comparison.tokens = 5;
  comparison.bucket_tokens = 2;
  comparison.kv_bytes_per_token = 1 << 20;
  Contender contender;
  contender.policy = "window:window_tokens=2";
  contender.scored.tokens = 5;
  contender.scored.mean_nll = 2.5;
  contender.scored.visible_tokens = 3;
  contender.scored.peak_resident_tokens = 4;
  contender.nll = {1, 2, 3, 4};
  contender.visible.Note(Update(4, 3));
  contender.visible.Note(Finished(5, 3));
  comparison.contenders.push_back(contender);
  return comparison;
}

TEST(Buckets, MeanOfTheTokensThatHaveAValue) {
  const Comparison comparison = FiveTokens();
  const auto buckets = Buckets(comparison, comparison.contenders[0]);
  ASSERT_EQ(buckets.size(), 3u);
  EXPECT_EQ(buckets[0].first, 0u);
  EXPECT_EQ(buckets[0].end, 2u);
  EXPECT_DOUBLE_EQ(buckets[0].mean_nll, 1);  // of token 1
  EXPECT_DOUBLE_EQ(buckets[1].mean_nll, 2.5);
  EXPECT_DOUBLE_EQ(buckets[2].mean_nll, 4);
  EXPECT_EQ(buckets[2].end, 5u);
  EXPECT_DOUBLE_EQ(buckets[2].perplexity(), std::exp(4));
  EXPECT_EQ(buckets[1].visible, 3u);
}

TEST(Buckets, NoneIsWithoutAValue) {
  Comparison comparison = FiveTokens();
  comparison.bucket_tokens = 1;
  const auto buckets = Buckets(comparison, comparison.contenders[0]);
  ASSERT_EQ(buckets.size(), 4u);
  EXPECT_EQ(buckets[0].first, 1u);
  comparison.contenders[0].nll.clear();
  EXPECT_THAT(Buckets(comparison, comparison.contenders[0]), IsEmpty());
}

v1::GetServerInfoResponse Server(uint64_t kv_bytes) {
  v1::GetServerInfoResponse server;
  server.mutable_limits()->set_session_kv_memory_bytes(kv_bytes);
  for (const char* name : {"full", "window", "sinks", "tova"}) {
    v1::PolicyInfo& policy = *server.add_policies();
    policy.set_name(name);
    policy.set_supported(true);
  }
  return server;
}

v1::ModelInfo Model(uint32_t context) {
  v1::ModelInfo model;
  model.set_trained_context_tokens(context);
  model.set_kv_bytes_per_token(1000);
  return model;
}

TEST(DefaultPolicies, WindowAndSinksSeeEquallyMany) {
  EXPECT_THAT(DefaultPolicies(Server(1 << 30), Model(8192)),
              ElementsAre("full", "window:window_tokens=1023",
                          "sinks:sink_tokens=4,window_tokens=1019"));
}

TEST(DefaultPolicies, FitTheModelAndTheMemory) {
  EXPECT_THAT(DefaultPolicies(Server(1 << 30), Model(2048))[1],
              "window:window_tokens=255");
  EXPECT_THAT(DefaultPolicies(Server(200 * 1000), Model(8192))[1],
              "window:window_tokens=99");
}

TEST(DefaultPolicies, LeaveOutWhatTheServerLacks) {
  v1::GetServerInfoResponse server = Server(1 << 30);
  server.mutable_policies(1)->set_supported(false);
  server.mutable_policies(2)->set_name("other");
  EXPECT_THAT(DefaultPolicies(server, Model(8192)), ElementsAre("full"));
}

TEST(ShortNames, AreNumberedWhereAPolicyIsThereTwice) {
  Comparison comparison = FiveTokens();
  comparison.contenders.push_back(comparison.contenders[0]);
  EXPECT_THAT(ShortNames(comparison), ElementsAre("window", "window 2"));
}

TEST(PerplexityOfFirst, IsThatOfTheTokensBeforeIt) {
  const Comparison comparison = FiveTokens();
  const Contender& contender = comparison.contenders[0];
  EXPECT_DOUBLE_EQ(PerplexityOfFirst(contender, 4), std::exp(2));
  EXPECT_DOUBLE_EQ(PerplexityOfFirst(contender, 9), std::exp(2.5));
  EXPECT_DOUBLE_EQ(PerplexityOfFirst(contender, 1), 1);
}

TEST(ComparisonTable, ComparesWhatAllHaveReadWhereOneEndedEarly) {
  Comparison comparison = FiveTokens();
  EXPECT_THAT(ComparisonTable(comparison), Not(HasSubstr("first")));
  Contender shorter = comparison.contenders[0];
  shorter.scored.tokens = 3;
  shorter.nll = {1, 1};
  comparison.contenders.push_back(shorter);
  EXPECT_EQ(CommonTokens(comparison), 3u);
  EXPECT_THAT(ComparisonTable(comparison),
              HasSubstr("first 3                     4.48        2.72\n"));
}

TEST(ComparisonTable, TellsWhyAPolicyEnded) {
  Comparison comparison = FiveTokens();
  EXPECT_THAT(ComparisonTable(comparison), Not(HasSubstr("ended")));
  comparison.tokens = 9;
  comparison.contenders[0].ended = Ending{"CACHE_FULL", "no room"};
  EXPECT_THAT(ComparisonTable(comparison),
              HasSubstr("window:window_tokens=2 ended at 5 tokens, "
                        "CACHE_FULL:\nno room"));
}

TEST(ComparisonTable, SaysWhenNothingWasForgotten) {
  Comparison comparison = FiveTokens();
  EXPECT_THAT(ComparisonTable(comparison), Not(HasSubstr("longer text")));
  comparison.contenders[0].scored.visible_tokens = 5;
  EXPECT_THAT(ComparisonTable(comparison), HasSubstr("longer text"));
}

TEST(ComparisonCsv, QuotesThePolicyForItsCommas) {
  EXPECT_THAT(ComparisonCsv(FiveTokens()),
              HasSubstr("\n\"window:window_tokens=2\",4,5,4.000000,54.598150,3,"
                        "3145728\n"));
}

TEST(GnuplotScript, QuotesNamesAndCarriesTheData) {
  const std::string script = GnuplotScript(FiveTokens(), "a'b.svg");
  EXPECT_THAT(script, HasSubstr("set output 'a''b.svg'\n"));
  EXPECT_THAT(script, HasSubstr("it''s.txt"));
  EXPECT_THAT(script, HasSubstr("$perplexity0 << EOD\n1.0 2.7183\n"));
  EXPECT_THAT(script, HasSubstr("$visible0 << EOD\n0 0\n4 3\n5 3\n"));
  EXPECT_THAT(script, HasSubstr("set terminal svg "));
  EXPECT_THAT(GnuplotScript(FiveTokens(), "a.png"),
              HasSubstr("set terminal pngcairo "));
}

TEST(CheckPlotName, WantsSvgOrPng) {
  EXPECT_TRUE(CheckPlotName("a.svg").ok());
  EXPECT_TRUE(CheckPlotName("b/a.png").ok());
  EXPECT_THAT(std::string(CheckPlotName("a.pdf").message()),
              HasSubstr("--plot=a.pdf: the name must end with .svg or .png"));
}

}  // namespace
}  // namespace millrace::cli
