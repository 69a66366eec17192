// What a server is told when it starts. Filled from flags (flags.h), which say
// more about each.
#ifndef MILLRACE_SERVICES_SERVER_OPTIONS_H_
#define MILLRACE_SERVICES_SERVER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/metrics/json_log.h"

namespace millrace::server {

struct GrpcOptions {
  int64_t max_receive_message_bytes = 4 << 20;
  int64_t max_metadata_bytes = 8 << 10;
  int max_concurrent_streams = 0;  // 0: max sessions + 100
  absl::Duration keepalive_time = absl::Seconds(60);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  bool keepalive_permit_without_calls = true;
  absl::Duration min_recv_ping_interval_without_data = absl::Seconds(30);
  int max_ping_strikes = 2;
  absl::Duration max_connection_idle = absl::InfiniteDuration();
  absl::Duration max_connection_age = absl::Minutes(10);
  absl::Duration max_connection_age_grace = absl::InfiniteDuration();
  int64_t memory_quota_bytes = 256 << 20;
};

struct ServerOptions {
  // ---- Model ----
  std::string model;         // path
  std::string model_sha256;  // empty: any
  std::string backend = "auto";
  std::string cpu_kernels = "auto";
  std::string cache_policy = "sinks";    // of sessions that name none
  std::optional<int64_t> sink_token_id;  // unset: what the model file says
  std::string kv_dtype;                  // "int8"; empty: the backend's own
  bool deterministic = false;
  std::string speculation = "ngram";  // of requests that name none
  int threads = 0;                    // 0: what the process may use

  // ---- Listeners: literal addresses ----
  std::string listen = "127.0.0.1:9000";
  std::string health_listen = "127.0.0.1:9003";
  std::string metrics_listen = "127.0.0.1:9090";
  std::string admin_listen = "127.0.0.1:9001";
  bool insecure_allow_remote = false;
  std::string tls_cert, tls_key;  // paths; both or neither
  std::string auth_token_file;    // empty: nobody is asked
  GrpcOptions grpc;

  // ---- Memory and admission ----
  int64_t kv_memory_bytes = 0;     // 0: from what is there
  int64_t memory_limit_bytes = 0;  // 0: of the cgroup, if any
  int64_t session_kv_memory_bytes = 512 << 20;
  int max_sessions = 0;  // 0: what K/V memory holds
  int max_queue = 64;
  absl::Duration queue_timeout = absl::Seconds(30);

  // ---- Requests ----
  int64_t max_pending_input_bytes = 1 << 20;
  int64_t default_turn_tokens = 1024;
  int64_t max_turn_tokens = 0;  // 0: no cap
  absl::Duration max_turn_duration = absl::InfiniteDuration();
  int max_stop_strings = 16, max_stop_bytes = 256, max_logit_bias = 1024,
      max_top_logprobs = 20, max_request_id_bytes = 128;
  bool allow_special_tokens = false;
  int prefill_chunk_tokens = 0;  // 0: what the backend likes

  // ---- Streams and sessions ----
  int64_t outbound_queue_bytes = 256 << 10;
  absl::Duration slow_reader_timeout = absl::Minutes(10);
  absl::Duration heartbeat_interval = absl::Seconds(15);
  absl::Duration session_idle_timeout = absl::Minutes(30);
  absl::Duration detach_timeout = absl::Seconds(60);
  absl::Duration open_timeout = absl::Seconds(10);

  // ---- Shutdown, logs ----
  absl::Duration drain_delay = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(45);
  metrics::Level log_level = metrics::Level::kInfo;
};

// INVALID_ARGUMENT names the flag, its value and what to change: a range that
// is left, a plaintext listener beyond loopback, half of TLS, a policy that
// does not parse.
absl::Status Validate(const ServerOptions& options);

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_OPTIONS_H_
