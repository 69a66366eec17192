#include "services/server/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/server/byte_size.h"
#include "services/server/listen_address.h"

namespace millrace::server {
namespace {

using testing::HasSubstr;

ServerOptions Good() {
  ServerOptions options;
  options.model = "model.gguf";
  return options;
}

// What Validate says of good options with one change.
template <typename Change>
std::string Complaint(Change change) {
  ServerOptions options = Good();
  change(options);
  return std::string(Validate(options).message());
}

TEST(Options, DefaultsAreValid) {
  EXPECT_TRUE(Validate(Good()).ok()) << Validate(Good());
}

TEST(Options, ModelIsRequired) {
  EXPECT_THAT(Complaint([](auto& o) { o.model = ""; }), HasSubstr("--model"));
}

TEST(Options, PlaintextStaysOnLoopback) {
  for (const char* remote : {"0.0.0.0:9000", "[::]:9000", "10.0.0.1:9000"}) {
    EXPECT_THAT(Complaint([&](auto& o) { o.listen = remote; }),
                AllOf(HasSubstr("--listen"), HasSubstr("--tls_cert"),
                      HasSubstr("--insecure_allow_remote")))
        << remote;
  }
}

TEST(Options, PlaintextLeavesLoopbackWhenAskedByName) {
  EXPECT_EQ(Complaint([](auto& o) {
              o.listen = "0.0.0.0:9000";
              o.insecure_allow_remote = true;
            }),
            "");
}

TEST(Options, TlsLeavesLoopback) {
  EXPECT_EQ(Complaint([](auto& o) {
              o.listen = "[::]:9000";
              o.tls_cert = "cert.pem";
              o.tls_key = "key.pem";
            }),
            "");
}

TEST(Options, AdminNeverLeavesTheMachine) {
  EXPECT_THAT(Complaint([](auto& o) {
                o.admin_listen = "0.0.0.0:9001";
                o.insecure_allow_remote = true;
              }),
              HasSubstr("--admin_listen"));
  EXPECT_EQ(Complaint([](auto& o) { o.admin_listen = "unix:/run/a.sock"; }),
            "");
}

TEST(Options, HealthAndMetricsMayLeave) {
  EXPECT_EQ(Complaint([](auto& o) {
              o.health_listen = "0.0.0.0:9003";
              o.metrics_listen = "0.0.0.0:9090";
            }),
            "");
}

TEST(Options, HostNamesAreRefusedEverywhere) {
  EXPECT_THAT(Complaint([](auto& o) { o.listen = "localhost:9000"; }),
              AllOf(HasSubstr("--listen"), HasSubstr("literal")));
  EXPECT_THAT(Complaint([](auto& o) { o.health_listen = "localhost:9003"; }),
              HasSubstr("--health_listen"));
  EXPECT_THAT(Complaint([](auto& o) { o.metrics_listen = "unix:/m"; }),
              HasSubstr("--metrics_listen"));
}

TEST(Options, TlsComesInPairs) {
  EXPECT_THAT(Complaint([](auto& o) { o.tls_cert = "cert.pem"; }),
              HasSubstr("--tls_key"));
}

TEST(Options, WrongValuesNameTheirFlag) {
  EXPECT_THAT(Complaint([](auto& o) { o.threads = -1; }),
              AllOf(HasSubstr("--threads=-1"), HasSubstr("0 to 4096")));
  EXPECT_THAT(Complaint([](auto& o) { o.prefill_chunk_tokens = -1; }),
              HasSubstr("--prefill_chunk_tokens=-1"));
  EXPECT_THAT(Complaint([](auto& o) { o.drain_timeout = absl::Seconds(-1); }),
              HasSubstr("--drain_timeout=-1s"));
  EXPECT_THAT(Complaint([](auto& o) { o.heartbeat_interval = {}; }),
              HasSubstr("--heartbeat_interval=0"));
  EXPECT_THAT(
      Complaint([](auto& o) { o.kv_dtype = "int4"; }),
      AllOf(HasSubstr("--kv_dtype=int4"), HasSubstr("f32, f16, bf16, int8")));
  EXPECT_THAT(
      Complaint([](auto& o) { o.speculation = "medusa"; }),
      AllOf(HasSubstr("--speculation=medusa"), HasSubstr("ngram or none")));
  EXPECT_THAT(Complaint([](auto& o) { o.cpu_kernels = "neon"; }),
              AllOf(HasSubstr("--cpu_kernels=neon"), HasSubstr("avx2")));
  EXPECT_THAT(Complaint([](auto& o) { o.model_sha256 = "b179"; }),
              HasSubstr("64 hexadecimal digits"));
  EXPECT_THAT(Complaint([](auto& o) { o.cache_policy = "lru"; }),
              AllOf(HasSubstr("--cache_policy=lru"), HasSubstr("sinks")));
}

TEST(ListenAddress, KnowsLoopback) {
  for (const char* text :
       {"127.0.0.1:0", "127.8.9.10:65535", "[::1]:9000", "unix:/run/m.sock"}) {
    const auto address = ParseListenAddress(text);
    ASSERT_TRUE(address.ok()) << text;
    EXPECT_TRUE(address->is_loopback) << text;
  }
  for (const char* text :
       {"0.0.0.0:1", "[::]:1", "128.0.0.1:1", "[::ffff:127.0.0.1]:1"}) {
    const auto address = ParseListenAddress(text);
    ASSERT_TRUE(address.ok()) << text;
    EXPECT_FALSE(address->is_loopback) << text;
  }
}

TEST(ListenAddress, RefusesWhatIsNone) {
  for (const char* text :
       {"", ":", "9000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
        "127.0.0.1:-1", "127.0.0.1:http", "127.1:9000", "::1:9000", "[::1",
        "[127.0.0.1]:1", "localhost:1", "unix:", "127.0.0.1:1:2"}) {
    EXPECT_FALSE(ParseListenAddress(text).ok()) << text;
  }
}

int64_t Bytes(const char* text) {
  ByteSize size;
  std::string error;
  return AbslParseFlag(text, &size, &error) ? size.bytes : -1;
}

TEST(ByteSize, TakesUnits) {
  EXPECT_EQ(Bytes("0"), 0);
  EXPECT_EQ(Bytes("1048576"), 1 << 20);
  EXPECT_EQ(Bytes("1MiB"), 1 << 20);
  EXPECT_EQ(Bytes("1.5GiB"), 3 << 29);
  EXPECT_EQ(Bytes("2TiB"), int64_t{2} << 40);
}

TEST(ByteSize, RefusesWhatIsNoSize) {
  for (const char* text : {"", "MiB", "-1", "1MB", "1.5", "1e30", "nan", "inf",
                           "9000000TiB", "1 MiB x"}) {
    EXPECT_EQ(Bytes(text), -1) << text;
  }
}

TEST(ByteSize, PrintsWhatItReads) {
  for (const char* text : {"0", "1000", "64KiB", "1536MiB", "2GiB"}) {
    EXPECT_EQ(AbslUnparseFlag(ByteSize{Bytes(text)}), text);
  }
}

}  // namespace
}  // namespace millrace::server
