#include "services/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace millrace::metrics {
namespace {

// The table of names: type and labels, as the README of services/metrics has
// it.
struct Row {
  const char* type;
  std::set<std::string> labels;
};
const std::map<std::string, Row>& Table() {
  static const auto* table = new std::map<std::string, Row>{
      {"millrace_requests_waiting", {"gauge", {"model"}}},
      {"millrace_requests_running", {"gauge", {"model"}}},
      {"millrace_kv_cache_usage_ratio", {"gauge", {"model"}}},
      {"millrace_cache_config_info",
       {"gauge", {"model", "block_size", "num_blocks"}}},
      {"millrace_time_to_first_token_seconds",
       {"histogram", {"model", "policy"}}},
      {"millrace_inter_token_latency_seconds",
       {"histogram", {"model", "policy", "position_class"}}},
      {"millrace_request_duration_seconds", {"histogram", {"model"}}},
      {"millrace_queue_duration_seconds", {"histogram", {"model"}}},
      {"millrace_requests_finished_total", {"counter", {"model", "reason"}}},
      {"millrace_prompt_tokens_total", {"counter", {"model", "policy"}}},
      {"millrace_generated_tokens_total", {"counter", {"model", "policy"}}},
      {"millrace_evicted_tokens_total", {"counter", {"model", "policy"}}},
      {"millrace_kv_cache_bytes", {"gauge", {"model", "state"}}},
      {"millrace_sessions", {"gauge", {"state"}}},
      {"millrace_session_duration_seconds", {"histogram", {"reason"}}},
      {"millrace_engine_step_seconds", {"histogram", {"model", "backend"}}},
      {"millrace_engine_batch_rows", {"histogram", {"model", "backend"}}},
      {"millrace_engine_phase_seconds_total", {"counter", {"model", "phase"}}},
      {"millrace_drafted_tokens_total", {"counter", {"model"}}},
      {"millrace_accepted_tokens_total", {"counter", {"model"}}},
      {"millrace_engine_last_step_age_seconds", {"gauge", {"model"}}},
      {"millrace_nonfinite_logits_total", {"counter", {"model"}}},
      {"millrace_admission_rejected_total", {"counter", {"reason"}}},
      {"millrace_slow_consumer_closed_total", {"counter", {}}},
      {"millrace_stream_paused_total", {"counter", {}}},
      {"millrace_outbound_queue_bytes", {"gauge", {}}},
      {"millrace_drain_state", {"gauge", {}}},
      {"millrace_model_load_seconds", {"gauge", {"model"}}},
      {"millrace_model_loaded", {"gauge", {"model"}}},
      {"millrace_build_info",
       {"gauge", {"version", "commit", "grpc", "backend"}}},
      {"millrace_rpc_started_total", {"counter", {"method"}}},
      {"millrace_rpc_duration_seconds", {"histogram", {"method", "code"}}},
      {"millrace_process_resident_bytes", {"gauge", {}}},
      {"millrace_process_open_fds", {"gauge", {}}},
      {"millrace_memory_usage_ratio", {"gauge", {}}},
      {"millrace_sessions_resumed_total", {"counter", {"reason"}}},
      {"millrace_sessions_expired_total", {"counter", {"reason"}}},
      {"millrace_auth_failures_total", {"counter", {"reason"}}},
  };
  return *table;
}

// A scrape: types by name, and values by the text before them.
struct Scraped {
  std::map<std::string, std::string> types;
  std::map<std::string, double> values;
  std::map<std::string, std::set<std::string>> labels;
};

std::string FamilyOf(absl::string_view series, const Scraped& scraped) {
  std::string name(series.substr(0, series.find('{')));
  for (absl::string_view suffix : {"_bucket", "_count", "_sum"}) {
    const std::string stem(absl::StripSuffix(name, suffix));
    if (stem != name && scraped.types.contains(stem)) return stem;
  }
  return name;
}

Scraped Parse(const std::string& text) {
  Scraped out;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, "# TYPE ")) {
      const std::vector<std::string> words = absl::StrSplit(line, ' ');
      out.types[words[2]] = words[3];
    } else if (!line.empty() && line[0] != '#') {
      const size_t space = line.rfind(' ');
      const std::string series(line.substr(0, space));
      double value = 0;
      EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
      out.values[series] = value;
      const size_t brace = series.find('{');
      auto& labels = out.labels[FamilyOf(series, out)];
      if (brace == std::string::npos) continue;
      const std::string inside =
          series.substr(brace + 1, series.size() - brace - 2);
      for (absl::string_view pair : absl::StrSplit(inside, ',')) {
        const std::string label(pair.substr(0, pair.find('=')));
        if (label != "le") labels.insert(label);
      }
    }
  }
  return out;
}

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() {
    metrics_.SetMethods({"millrace.v1.SessionService/Connect"});
    metrics_.SetModel({.name = "tiny",
                       .backend = "reference",
                       .policies = {"full", "sinks"},
                       .phases = {"attention"},
                       .block_tokens = 16,
                       .num_blocks = 100,
                       .load_seconds = 1.5});
  }

  Scraped Scrape() { return Parse(metrics_.Scrape()); }
  double Value(const std::string& series) {
    const Scraped scraped = Scrape();
    const auto found = scraped.values.find(series);
    return found == scraped.values.end() ? -1 : found->second;
  }

  Metrics metrics_{{.version = "1.2.3",
                    .commit = "abc",
                    .grpc = "1.51.1",
                    .backend = "reference"}};
};

TEST_F(MetricsTest, EveryNameOfTheTableIsThereFromTheStart) {
  const Scraped scraped = Scrape();
  for (const auto& [name, row] : Table()) {
    ASSERT_TRUE(scraped.types.contains(name)) << name;
    EXPECT_EQ(scraped.types.at(name), row.type) << name;
    EXPECT_EQ(scraped.labels.at(name), row.labels) << name;
  }
}

TEST_F(MetricsTest, NothingIsExportedThatTheTableLacks) {
  for (const auto& [name, type] : Scrape().types) {
    EXPECT_TRUE(Table().contains(name)) << name;
  }
}

TEST_F(MetricsTest, CountsATurn) {
  metrics_.TurnFinished({.policy = "sinks",
                         .reason = "max_tokens",
                         .queued_seconds = 0.02,
                         .first_token_seconds = 0.3,
                         .duration_seconds = 2});
  EXPECT_EQ(Value("millrace_requests_finished_total{model=\"tiny\",reason="
                  "\"max_tokens\"}"),
            1);
  EXPECT_EQ(Value("millrace_requests_finished_total{model=\"tiny\",reason="
                  "\"stop\"}"),
            0);
  EXPECT_EQ(Value("millrace_request_duration_seconds_sum{model=\"tiny\"}"), 2);
  EXPECT_EQ(Value("millrace_time_to_first_token_seconds_bucket{model=\"tiny\","
                  "policy=\"sinks\",le=\"0.5\"}"),
            1);
  EXPECT_EQ(Value("millrace_time_to_first_token_seconds_bucket{model=\"tiny\","
                  "policy=\"sinks\",le=\"0.25\"}"),
            0);
}

TEST_F(MetricsTest, TurnWithoutATokenHasNoFirstToken) {
  metrics_.TurnFinished({.policy = "full", .reason = "interrupted"});
  EXPECT_EQ(Value("millrace_time_to_first_token_seconds_count{model=\"tiny\","
                  "policy=\"full\"}"),
            0);
}

TEST_F(MetricsTest, LatencyIsSortedByTextPosition) {
  metrics_.TokenGaps("sinks", 4095, 2, 0.004);
  metrics_.TokenGaps("sinks", 1'000'000, 1, 0.004);
  const auto count = [&](const char* position) {
    return Value(absl::StrCat(
        "millrace_inter_token_latency_seconds_count{model=\"tiny\",policy="
        "\"sinks\",position_class=\"",
        position, "\"}"));
  };
  EXPECT_EQ(count("lt_4k"), 2);
  EXPECT_EQ(count("lt_64k"), 0);
  EXPECT_EQ(count("ge_1m"), 1);
}

TEST_F(MetricsTest, UnknownMethodsAreOther) {
  metrics_.RpcStarted("millrace.v1.SessionService/Connect");
  metrics_.RpcStarted("evil.Service/Name-chosen-by-a-client");
  EXPECT_EQ(Value("millrace_rpc_started_total{method=\"millrace.v1."
                  "SessionService/Connect\"}"),
            1);
  EXPECT_EQ(Value("millrace_rpc_started_total{method=\"other\"}"), 1);
}

TEST_F(MetricsTest, RefusalsOfARequestAreInvalid) {
  metrics_.AdmissionRejected("KV_BUDGET");
  metrics_.AdmissionRejected("INVALID_FIELD");
  metrics_.AdmissionRejected("INVALID_CACHE_POLICY");
  EXPECT_EQ(Value("millrace_admission_rejected_total{reason=\"kv_budget\"}"),
            1);
  EXPECT_EQ(Value("millrace_admission_rejected_total{reason=\"invalid\"}"), 2);
}

TEST_F(MetricsTest, SamplesAtEachScrape) {
  uint64_t paused = 2;
  metrics_.SetSampler([&] {
    Sample sample;
    sample.sessions["paused"] = 3;
    sample.kv_total_bytes = 1000;
    sample.kv_reserved_bytes = 250;
    sample.paused = paused;
    sample.phase_seconds["attention"] = 0.25 * paused;
    sample.drafted_tokens = 10 * paused;
    sample.accepted_tokens = 4 * paused;
    return sample;
  });
  EXPECT_EQ(Value("millrace_sessions{state=\"paused\"}"), 3);
  EXPECT_EQ(Value("millrace_sessions{state=\"idle\"}"), 0);
  EXPECT_EQ(Value("millrace_kv_cache_usage_ratio{model=\"tiny\"}"), 0.25);
  EXPECT_EQ(Value("millrace_stream_paused_total"), 2);
  paused = 5;
  EXPECT_EQ(Value("millrace_stream_paused_total"), 5);
  EXPECT_EQ(Value("millrace_engine_phase_seconds_total{model=\"tiny\","
                  "phase=\"attention\"}"),
            1.25);
  EXPECT_EQ(Value("millrace_drafted_tokens_total{model=\"tiny\"}"), 50);
  EXPECT_EQ(Value("millrace_accepted_tokens_total{model=\"tiny\"}"), 20);
}

TEST_F(MetricsTest, TellsTheDrain) {
  metrics_.SetDrainState(DrainState::kLameDuck);
  EXPECT_EQ(Value("millrace_drain_state"), 1);
}

}  // namespace
}  // namespace millrace::metrics
