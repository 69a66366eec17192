#include "services/server/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"

namespace millrace::server {
namespace {

using testing::HasSubstr;
using testing::Not;

// Sets flags by name; the saver puts them back.
class Flags : public testing::Test {
 protected:
  void Set(const char* name, const char* value) {
    std::string error;
    ASSERT_TRUE(absl::FindCommandLineFlag(name)->ParseFrom(value, &error))
        << error;
  }

 private:
  absl::FlagSaver saver_;
};

TEST_F(Flags, DefaultsAreThoseOfTheOptions) {
  Set("model", "m.gguf");
  const auto options = OptionsFromFlags();
  ASSERT_TRUE(options.ok()) << options.status();
  const ServerOptions defaults;
  EXPECT_EQ(options->listen, defaults.listen);
  EXPECT_EQ(options->health_listen, defaults.health_listen);
  EXPECT_EQ(options->metrics_listen, defaults.metrics_listen);
  EXPECT_EQ(options->admin_listen, defaults.admin_listen);
  EXPECT_EQ(options->session_kv_memory_bytes, defaults.session_kv_memory_bytes);
  EXPECT_EQ(options->outbound_queue_bytes, defaults.outbound_queue_bytes);
  EXPECT_EQ(options->drain_timeout, defaults.drain_timeout);
  EXPECT_EQ(options->default_turn_tokens, defaults.default_turn_tokens);
  EXPECT_EQ(options->prefill_chunk_tokens, defaults.prefill_chunk_tokens);
  EXPECT_EQ(options->grpc.max_metadata_bytes, defaults.grpc.max_metadata_bytes);
  EXPECT_EQ(options->grpc.max_connection_age, defaults.grpc.max_connection_age);
}

TEST_F(Flags, ASinkTokenIsUnsetUnlessItIsNamed) {
  Set("model", "m.gguf");
  EXPECT_EQ(OptionsFromFlags()->sink_token_id, std::nullopt);
  Set("sink_token_id", "0");
  EXPECT_EQ(OptionsFromFlags()->sink_token_id, 0);
  Set("sink_token_id", "");  // as a flag file writes what is unset
  EXPECT_EQ(OptionsFromFlags()->sink_token_id, std::nullopt);
}

TEST_F(Flags, PortZeroIsTakenOverByListenersThatAreNotNamed) {
  Set("model", "m.gguf");
  Set("listen", "127.0.0.1:0");
  Set("health_listen", "127.0.0.1:7003");
  const auto options = OptionsFromFlags();
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->health_listen, "127.0.0.1:7003");
  EXPECT_EQ(options->metrics_listen, "127.0.0.1:0");
  EXPECT_EQ(options->admin_listen, "127.0.0.1:0");
}

TEST_F(Flags, WrongLogLevelNamesTheFlag) {
  Set("model", "m.gguf");
  Set("log_level", "loud");
  EXPECT_THAT(std::string(OptionsFromFlags().status().message()),
              AllOf(HasSubstr("--log_level"), HasSubstr("loud")));
}

TEST_F(Flags, FlagFileHoldsEveryFlagWithItsValue) {
  Set("kv_memory", "2GiB");
  const std::string file = FlagFile();
  EXPECT_THAT(file, HasSubstr("--kv_memory=2GiB\n"));
  EXPECT_THAT(file, HasSubstr("--drain_timeout=45s\n"));
  EXPECT_THAT(file, HasSubstr("--grpc_max_connection_age_grace=inf\n"));
  EXPECT_THAT(file, Not(HasSubstr("gtest")));
  EXPECT_THAT(file, Not(HasSubstr("print_config")));
}

TEST_F(Flags, ChangedFlagsAreThoseThatDiffer) {
  Set("threads", "2");
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"threads", "2"}};
  EXPECT_EQ(ChangedFlags(), expected);
}

// Every flag says what it does in a sentence.
TEST_F(Flags, EveryFlagHasHelp) {
  int ours = 0;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (flag->Filename().find("server/flags.cc") == std::string::npos) continue;
    ++ours;
    EXPECT_GE(flag->Help().size(), 15u) << name;
    EXPECT_EQ(flag->Help().back(), '.') << name;
  }
  EXPECT_GE(ours, 50);
}

}  // namespace
}  // namespace millrace::server
