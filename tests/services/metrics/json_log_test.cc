#include "services/metrics/json_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace millrace::metrics {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

class Log : public testing::Test {
 protected:
  void Write(Level level, absl::string_view event,
             const LogFields& fields = {}) {
    log_.Write(level, event, "message", fields);
  }

  absl::Time now_ = absl::UnixEpoch();
  std::vector<std::string> lines_;
  JsonLog log_{Level::kInfo,
               [this](absl::string_view line) { lines_.emplace_back(line); },
               [this] { return now_; }};
};

TEST_F(Log, LineIsOneJsonObject) {
  Write(Level::kWarning, "drain", {{"sessions", int64_t{3}}, {"cut", true}});
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_EQ(lines_[0],
            "{\"ts\":\"1970-01-01T00:00:00.000000Z\",\"level\":\"warning\","
            "\"event\":\"drain\",\"msg\":\"message\",\"sessions\":3,"
            "\"cut\":true}\n");
}

TEST_F(Log, LessThanTheLeastLevelIsLeftOut) {
  Write(Level::kDebug, "detail");
  EXPECT_TRUE(lines_.empty());
}

TEST_F(Log, StringsAreEscapedAndRepairedAndCut) {
  Write(Level::kInfo, "call",
        {{"a", "quote\" newline\n"},
         {"b", "bad \xff utf"},
         {"c", std::string(1000, 'x')}});
  const Json line = Json::parse(lines_[0]);
  EXPECT_EQ(line["a"], "quote\" newline\n");
  EXPECT_EQ(line["b"], "bad \xEF\xBF\xBD utf");
  EXPECT_EQ(line["c"].get<std::string>().size(), 128u);
}

TEST_F(Log, FloodsOfOneEventAreCountedInstead) {
  for (int i = 0; i < 150; ++i) Write(Level::kInfo, "call");
  Write(Level::kInfo, "other");
  EXPECT_EQ(lines_.size(), 101u);
  now_ += absl::Seconds(1);
  Write(Level::kInfo, "call");
  EXPECT_EQ(Json::parse(lines_.back())["suppressed"], 50);
  Write(Level::kInfo, "call");
  EXPECT_FALSE(Json::parse(lines_.back()).contains("suppressed"));
}

TEST_F(Log, SessionsAreNamedByAHash) {
  EXPECT_EQ(SessionTag("abc"), "ba7816bf");  // SHA-256("abc") begins so
}

TEST_F(Log, LevelsHaveNames) {
  EXPECT_EQ(*ParseLevel("debug"), Level::kDebug);
  EXPECT_THAT(std::string(ParseLevel("loud").status().message()),
              HasSubstr("loud"));
}

}  // namespace
}  // namespace millrace::metrics
