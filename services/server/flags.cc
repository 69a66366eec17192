#include "services/server/flags.h"

#include <algorithm>
#include <optional>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/server/byte_size.h"

using millrace::server::ByteSize;

// ---- Model ----
ABSL_FLAG(std::string, model, "", "Path of the model, a GGUF file. Required.");
ABSL_FLAG(
    std::string, model_sha256, "",
    "SHA-256 that the model file must have, 64 hexadecimal digits; empty: "
    "any.");
ABSL_FLAG(std::string, backend, "auto",
          "What computes: auto (the first that runs here), cuda (NVIDIA GPU), "
          "onednn (CPU), reference (plain and slow: the measure of the "
          "others).");
ABSL_FLAG(std::string, cpu_kernels, "auto",
          "Instruction set of the CPU kernels: auto, scalar, avx2, avx512, "
          "avx512_vnni. Anything but auto is for tests.");
ABSL_FLAG(std::string, cache_policy, "sinks",
          "Cache policy of sessions that name none, as NAME or "
          "NAME:OPTION=VALUE,... such as sinks:sink_tokens=4,window_tokens=1020"
          "; `millrace info` lists all.");
ABSL_FLAG(
    std::optional<int64_t>, sink_token_id, std::nullopt,
    "Id of the token that the model was trained to find in front of every "
    "text, a dedicated attention sink; unset: as the model file says.");
ABSL_FLAG(std::string, kv_dtype, "",
          "How cached keys and values are stored: int8, f16, bf16 or f32; "
          "empty: int8, 8 bits a number and a scale for each key and value, "
          "but for the tokens that a cache policy protects, which stay in f16. "
          "f16 takes nearly twice the memory of int8, f32 twice that of f16; "
          "bf16 has the range of f32 and fewer digits than f16.");
ABSL_FLAG(
    bool, deterministic, false,
    "Never let a result depend on what else is computed. Costs speed with "
    "F32, F16 and BF16 weights, and on a GPU with all, in prefill and large "
    "batches; quantised weights on a CPU always are so.");
ABSL_FLAG(std::string, speculation, "ngram",
          "How tokens are guessed and verified many at once, where requests do "
          "not say: ngram (as the text went on where its last tokens stood "
          "before) or none. Changes no token; text that repeats itself comes "
          "faster.");
ABSL_FLAG(int32_t, threads, 0,
          "Compute threads; 0: as many as the CPU quota of the cgroup and the "
          "affinity allow. More than that makes every step slower.");

// ---- Listeners ----
ABSL_FLAG(
    std::string, listen, "127.0.0.1:9000",
    "Address of the data listener: inference, sessions, control, health. "
    "Literal, or unix:PATH. Port 0 chooses one, for the other listeners "
    "too unless they are named; the ready line on standard output tells.");
ABSL_FLAG(std::string, health_listen, "",
          "Address of the health listener, grpc.health.v1 in plaintext alone; "
          "empty: 127.0.0.1:9003. May leave loopback: kubelets probe the pod's "
          "address.");
ABSL_FLAG(std::string, metrics_listen, "",
          "Address where HTTP GET /metrics answers; empty: 127.0.0.1:9090.");
ABSL_FLAG(std::string, admin_listen, "",
          "Address of AdminService, loopback or unix:PATH; empty: "
          "127.0.0.1:9001.");
ABSL_FLAG(bool, insecure_allow_remote, false,
          "Let --listen leave loopback in plaintext. Anybody who can connect "
          "can then use the model: only where the network lets in those "
          "alone whom you trust.");
ABSL_FLAG(std::string, tls_cert, "",
          "Path of the certificate chain, PEM, of the data listener.");
ABSL_FLAG(std::string, tls_key, "",
          "Path of the private key, PEM, that goes with --tls_cert.");
ABSL_FLAG(std::string, auth_token_file, "",
          "Path of a file with one token of 16 or more characters. Every call "
          "but health must then carry `authorization: Bearer TOKEN`, and "
          "reflection is off. Empty: nobody is asked.");

// ---- Memory and admission ----
ABSL_FLAG(ByteSize, kv_memory, {},
          "Memory for keys and values of all sessions and requests, such as "
          "2GiB; 0: what the memory limit leaves beside weights and a reserve "
          "of 15%, at least 512MiB; without a limit a quarter of what is free, "
          "at most 4GiB. Physical memory is taken as it is used.");
ABSL_FLAG(ByteSize, memory_limit, {},
          "Memory that the process may use; 0: the limit of the cgroup, if "
          "there is one. New sessions are refused at 95%.");
ABSL_FLAG(ByteSize, session_kv_memory, {512 << 20},
          "Most of it that one session or request may ask for. A cap, not a "
          "reservation.");
ABSL_FLAG(int32_t, max_sessions, 0,
          "Sessions at once; more are refused with SESSION_LIMIT; 0: what "
          "--kv_memory holds.");
ABSL_FLAG(int32_t, max_queue, 64,
          "Generate and Score that may wait for memory; more are refused with "
          "QUEUE_FULL.");
ABSL_FLAG(absl::Duration, queue_timeout, absl::Seconds(30),
          "How long Generate and Score wait at most. Sessions never wait.");

// ---- Requests ----
ABSL_FLAG(ByteSize, max_pending_input_bytes, {1 << 20},
          "Input of one session that may wait to be read; more is rejected "
          "with INPUT_QUEUE_FULL.");
ABSL_FLAG(int64_t, default_turn_tokens, 1024,
          "Tokens that a turn may write where the client names no limit.");
ABSL_FLAG(
    int64_t, max_turn_tokens, 0,
    "Tokens that a turn may write at most; 0: no cap, also endless turns. "
    "A server that strangers share should set it.");
ABSL_FLAG(absl::Duration, max_turn_duration, absl::InfiniteDuration(),
          "How long a turn may write at most; inf: no cap.");
ABSL_FLAG(int32_t, max_stop_strings, 16, "Stop strings of a turn.");
ABSL_FLAG(int32_t, max_stop_bytes, 256, "Bytes of one stop string.");
ABSL_FLAG(int32_t, max_logit_bias, 1024, "Logit bias entries of a turn.");
ABSL_FLAG(int32_t, max_top_logprobs, 20,
          "Likeliest tokens that a response may list beside each token.");
ABSL_FLAG(int32_t, max_request_id_bytes, 128,
          "Bytes of an x-request-id; a longer one is left out of logs.");
ABSL_FLAG(bool, allow_special_tokens, false,
          "Take special tokens such as <|im_start|> from clients: with them a "
          "text can impersonate any role.");
ABSL_FLAG(int32_t, prefill_chunk_tokens, 0,
          "Tokens of one prefill chunk. More reads a long input sooner and "
          "delays the next token of every other session; 0: 64 on a CPU, 256 "
          "on a GPU.");

// ---- Streams and sessions ----
ABSL_FLAG(ByteSize, outbound_queue_bytes, {256 << 10},
          "Output of one session that may wait to be sent; beyond it the "
          "session pauses, and nothing is lost.");
ABSL_FLAG(absl::Duration, slow_reader_timeout, absl::Minutes(10),
          "How long a session pauses for its reader before it is detached.");
ABSL_FLAG(absl::Duration, heartbeat_interval, absl::Seconds(15),
          "Silence after which a stream gets a heartbeat. Every idle timeout "
          "between client and server must be longer.");
ABSL_FLAG(absl::Duration, session_idle_timeout, absl::Minutes(30),
          "How long a session may be idle: the default, and the most that a "
          "client may ask for.");
ABSL_FLAG(absl::Duration, detach_timeout, absl::Seconds(60),
          "How long a session waits for its client after the stream was lost: "
          "the default, and the most that a client may ask for.");
ABSL_FLAG(absl::Duration, open_timeout, absl::Seconds(10),
          "Time within which a stream's first message must come.");

// ---- gRPC ----
ABSL_FLAG(ByteSize, max_receive_message_bytes, {4 << 20},
          "Largest message; long input is many messages.");
ABSL_FLAG(ByteSize, max_metadata_bytes, {8 << 10}, "Largest metadata.");
ABSL_FLAG(int32_t, max_concurrent_streams, 0,
          "Streams of one connection; 0: sessions + 100. With fewer streams "
          "than sessions a client's next Connect waits without an error.");
ABSL_FLAG(absl::Duration, grpc_keepalive_time, absl::Seconds(60),
          "Silence of a connection before the server pings it.");
ABSL_FLAG(absl::Duration, grpc_keepalive_timeout, absl::Seconds(20),
          "How long a ping may take before the connection counts as dead.");
ABSL_FLAG(bool, grpc_keepalive_permit_without_calls, true,
          "Whether pings go on without a call.");
ABSL_FLAG(absl::Duration, grpc_min_recv_ping_interval_without_data,
          absl::Seconds(30),
          "Clients that ping more often without sending data get strikes.");
ABSL_FLAG(int32_t, grpc_max_ping_strikes, 2,
          "Strikes before a connection is ended; 0: never.");
ABSL_FLAG(absl::Duration, grpc_max_connection_idle, absl::InfiniteDuration(),
          "Time without calls after which a connection is closed.");
ABSL_FLAG(absl::Duration, grpc_max_connection_age, absl::Minutes(10),
          "Age at which clients are told to connect anew, so that new servers "
          "get sessions. Running streams go on.");
ABSL_FLAG(absl::Duration, grpc_max_connection_age_grace,
          absl::InfiniteDuration(),
          "How long streams may go on after that; inf: sessions outlive it.");
ABSL_FLAG(ByteSize, grpc_memory_quota_bytes, {256 << 20},
          "Memory for the transport of each listener.");

// ---- Shutdown, logs ----
ABSL_FLAG(absl::Duration, drain_delay, absl::ZeroDuration(),
          "After SIGTERM, how long new work is still taken: until load "
          "balancers have heard that readiness is off.");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(45),
          "How long running turns may then go on before streams are cut.");
ABSL_FLAG(std::string, log_level, "info",
          "Least level that is logged: debug, info, warning, error. Logs go to "
          "standard error as JSON, and never hold text.");
ABSL_FLAG(bool, check_config, false,
          "Check flags and the model file, and exit: 0 if a server could "
          "start.");
ABSL_FLAG(bool, print_config, false,
          "Print all flags as a flag file for --flagfile, and exit.");

namespace millrace::server {
namespace {

constexpr char kUsage[] =
    R"(runs a language model that reads and writes for ever.

  millraced --model=PATH                    serve it on 127.0.0.1:9000
  millraced --flagfile=FILE                 flags from a file, one a line
  millraced --fromenv=threads,model         flags from FLAGS_threads, FLAGS_model
  millraced healthcheck 127.0.0.1:9003      exit 0 if a server there is alive

When it serves it prints one line of JSON on standard output, with the ports.
SIGTERM lets running turns finish; a second one cuts them.

Durations are written 500ms, 30s, 10m, 2h or inf; sizes 64KiB, 1MiB, 2GiB.)";

bool IsOurs(absl::string_view file) {
  return absl::EndsWith(file, "services/server/flags.cc");
}

bool IsOurs(const absl::CommandLineFlag& flag) {
  return IsOurs(flag.Filename());
}

std::string Unlisted(const std::string& value, const char* fallback,
                     bool choose_port) {
  if (!value.empty()) return value;
  return choose_port ? "127.0.0.1:0" : fallback;
}

// Port 0 of --listen is taken over by listeners that are not named.
void ReadListeners(ServerOptions& out) {
  out.listen = absl::GetFlag(FLAGS_listen);
  const bool choose = absl::EndsWith(out.listen, ":0");
  out.health_listen =
      Unlisted(absl::GetFlag(FLAGS_health_listen), "127.0.0.1:9003", choose);
  out.metrics_listen =
      Unlisted(absl::GetFlag(FLAGS_metrics_listen), "127.0.0.1:9090", choose);
  out.admin_listen =
      Unlisted(absl::GetFlag(FLAGS_admin_listen), "127.0.0.1:9001", choose);
  out.insecure_allow_remote = absl::GetFlag(FLAGS_insecure_allow_remote);
  out.tls_cert = absl::GetFlag(FLAGS_tls_cert);
  out.tls_key = absl::GetFlag(FLAGS_tls_key);
  out.auth_token_file = absl::GetFlag(FLAGS_auth_token_file);
}

void ReadGrpc(GrpcOptions& out) {
  out.max_receive_message_bytes =
      absl::GetFlag(FLAGS_max_receive_message_bytes).bytes;
  out.max_metadata_bytes = absl::GetFlag(FLAGS_max_metadata_bytes).bytes;
  out.max_concurrent_streams = absl::GetFlag(FLAGS_max_concurrent_streams);
  out.keepalive_time = absl::GetFlag(FLAGS_grpc_keepalive_time);
  out.keepalive_timeout = absl::GetFlag(FLAGS_grpc_keepalive_timeout);
  out.keepalive_permit_without_calls =
      absl::GetFlag(FLAGS_grpc_keepalive_permit_without_calls);
  out.min_recv_ping_interval_without_data =
      absl::GetFlag(FLAGS_grpc_min_recv_ping_interval_without_data);
  out.max_ping_strikes = absl::GetFlag(FLAGS_grpc_max_ping_strikes);
  out.max_connection_idle = absl::GetFlag(FLAGS_grpc_max_connection_idle);
  out.max_connection_age = absl::GetFlag(FLAGS_grpc_max_connection_age);
  out.max_connection_age_grace =
      absl::GetFlag(FLAGS_grpc_max_connection_age_grace);
  out.memory_quota_bytes = absl::GetFlag(FLAGS_grpc_memory_quota_bytes).bytes;
}

void ReadModel(ServerOptions& out) {
  out.model = absl::GetFlag(FLAGS_model);
  out.model_sha256 = absl::GetFlag(FLAGS_model_sha256);
  out.backend = absl::GetFlag(FLAGS_backend);
  out.cpu_kernels = absl::GetFlag(FLAGS_cpu_kernels);
  out.cache_policy = absl::GetFlag(FLAGS_cache_policy);
  out.sink_token_id = absl::GetFlag(FLAGS_sink_token_id);
  out.kv_dtype = absl::GetFlag(FLAGS_kv_dtype);
  out.deterministic = absl::GetFlag(FLAGS_deterministic);
  out.speculation = absl::GetFlag(FLAGS_speculation);
  out.threads = absl::GetFlag(FLAGS_threads);
}

void ReadLimits(ServerOptions& out) {
  out.kv_memory_bytes = absl::GetFlag(FLAGS_kv_memory).bytes;
  out.memory_limit_bytes = absl::GetFlag(FLAGS_memory_limit).bytes;
  out.session_kv_memory_bytes = absl::GetFlag(FLAGS_session_kv_memory).bytes;
  out.max_sessions = absl::GetFlag(FLAGS_max_sessions);
  out.max_queue = absl::GetFlag(FLAGS_max_queue);
  out.queue_timeout = absl::GetFlag(FLAGS_queue_timeout);
  out.max_pending_input_bytes =
      absl::GetFlag(FLAGS_max_pending_input_bytes).bytes;
  out.default_turn_tokens = absl::GetFlag(FLAGS_default_turn_tokens);
  out.max_turn_tokens = absl::GetFlag(FLAGS_max_turn_tokens);
  out.max_turn_duration = absl::GetFlag(FLAGS_max_turn_duration);
  out.max_stop_strings = absl::GetFlag(FLAGS_max_stop_strings);
  out.max_stop_bytes = absl::GetFlag(FLAGS_max_stop_bytes);
  out.max_logit_bias = absl::GetFlag(FLAGS_max_logit_bias);
  out.max_top_logprobs = absl::GetFlag(FLAGS_max_top_logprobs);
  out.max_request_id_bytes = absl::GetFlag(FLAGS_max_request_id_bytes);
  out.allow_special_tokens = absl::GetFlag(FLAGS_allow_special_tokens);
  out.prefill_chunk_tokens = absl::GetFlag(FLAGS_prefill_chunk_tokens);
}

void ReadTimes(ServerOptions& out) {
  out.outbound_queue_bytes = absl::GetFlag(FLAGS_outbound_queue_bytes).bytes;
  out.slow_reader_timeout = absl::GetFlag(FLAGS_slow_reader_timeout);
  out.heartbeat_interval = absl::GetFlag(FLAGS_heartbeat_interval);
  out.session_idle_timeout = absl::GetFlag(FLAGS_session_idle_timeout);
  out.detach_timeout = absl::GetFlag(FLAGS_detach_timeout);
  out.open_timeout = absl::GetFlag(FLAGS_open_timeout);
  out.drain_delay = absl::GetFlag(FLAGS_drain_delay);
  out.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
}

}  // namespace

void SetUpFlags() {
  absl::SetProgramUsageMessage(kUsage);
  absl::FlagsUsageConfig config;
  const auto ours = [](absl::string_view file) { return IsOurs(file); };
  config.contains_helpshort_flags = ours;
  config.contains_help_flags = ours;
  config.contains_helppackage_flags = ours;
  config.version_string = [] {
    return absl::StrCat("millraced ", kVersion, "\n");
  };
  // Readers know the repository, not where it was built.
  config.normalize_filename = [](absl::string_view file) {
    const size_t at = file.rfind("services/server/");
    return std::string(at == file.npos ? file : file.substr(at));
  };
  absl::SetFlagsUsageConfig(config);
}

absl::StatusOr<ServerOptions> OptionsFromFlags() {
  ServerOptions out;
  ReadModel(out);
  ReadListeners(out);
  ReadGrpc(out.grpc);
  ReadLimits(out);
  ReadTimes(out);
  const std::string level = absl::GetFlag(FLAGS_log_level);
  const auto parsed = metrics::ParseLevel(level);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--log_level: ", parsed.status().message()));
  }
  out.log_level = *parsed;
  absl::Status status = Validate(out);
  if (!status.ok()) return status;
  return out;
}

bool CheckConfigOnly() { return absl::GetFlag(FLAGS_check_config); }
bool PrintConfigOnly() { return absl::GetFlag(FLAGS_print_config); }

std::string FlagFile() {
  std::vector<std::string> lines;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (!IsOurs(*flag) || name == "check_config" || name == "print_config") {
      continue;
    }
    lines.push_back(absl::StrCat("--", name, "=", flag->CurrentValue(), "\n"));
  }
  std::sort(lines.begin(), lines.end());
  return absl::StrCat("# Flags of millraced ", kVersion, "\n",
                      absl::StrJoin(lines, ""));
}

std::vector<std::pair<std::string, std::string>> ChangedFlags() {
  std::vector<std::pair<std::string, std::string>> changed;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (!IsOurs(*flag) || flag->CurrentValue() == flag->DefaultValue()) {
      continue;
    }
    changed.emplace_back(std::string(name), flag->CurrentValue());
  }
  std::sort(changed.begin(), changed.end());
  return changed;
}

}  // namespace millrace::server
