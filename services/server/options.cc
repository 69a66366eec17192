#include "services/server/options.h"

#include <limits>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cache/kv_spec.h"
#include "cache/policies/registry.h"
#include "services/server/listen_address.h"

namespace millrace::server {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

struct NumberRule {
  const char* flag;
  int64_t value, least, most;
};

absl::Status CheckNumbers(const ServerOptions& o) {
  const NumberRule rules[] = {
      {"threads", o.threads, 0, 4096},
      {"kv_memory", o.kv_memory_bytes, 0, kNoLimit},
      {"memory_limit", o.memory_limit_bytes, 0, kNoLimit},
      {"session_kv_memory", o.session_kv_memory_bytes, 1, kNoLimit},
      {"max_sessions", o.max_sessions, 0, 1'000'000},
      {"max_queue", o.max_queue, 0, 1'000'000},
      {"max_pending_input_bytes", o.max_pending_input_bytes, 1, 1 << 30},
      {"default_turn_tokens", o.default_turn_tokens, 1, kNoLimit},
      {"max_turn_tokens", o.max_turn_tokens, 0, kNoLimit},
      {"max_stop_strings", o.max_stop_strings, 0, 1024},
      {"max_stop_bytes", o.max_stop_bytes, 1, 65536},
      {"max_logit_bias", o.max_logit_bias, 0, 1'000'000},
      {"max_top_logprobs", o.max_top_logprobs, 0, 1000},
      {"max_request_id_bytes", o.max_request_id_bytes, 0, 4096},
      {"prefill_chunk_tokens", o.prefill_chunk_tokens, 0, 4096},
      {"outbound_queue_bytes", o.outbound_queue_bytes, 1024, 1 << 30},
      {"max_receive_message_bytes", o.grpc.max_receive_message_bytes, 1024,
       std::numeric_limits<int32_t>::max()},
      {"max_metadata_bytes", o.grpc.max_metadata_bytes, 1024, 1 << 20},
      {"max_concurrent_streams", o.grpc.max_concurrent_streams, 0, 1'000'000},
      {"grpc_max_ping_strikes", o.grpc.max_ping_strikes, 0, 1000},
      {"grpc_memory_quota_bytes", o.grpc.memory_quota_bytes, 1 << 20, kNoLimit},
  };
  for (const NumberRule& rule : rules) {
    if (rule.value >= rule.least && rule.value <= rule.most) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "--", rule.flag, "=", rule.value, ": must be ", rule.least,
        rule.most == kNoLimit ? " or more" : absl::StrCat(" to ", rule.most)));
  }
  return absl::OkStatus();
}

struct DurationRule {
  const char* flag;
  absl::Duration value;
  bool zero_allowed = false;
};

absl::Status CheckDurations(const ServerOptions& o) {
  const DurationRule rules[] = {
      {"queue_timeout", o.queue_timeout, true},
      {"max_turn_duration", o.max_turn_duration},
      {"slow_reader_timeout", o.slow_reader_timeout},
      {"heartbeat_interval", o.heartbeat_interval},
      {"session_idle_timeout", o.session_idle_timeout},
      {"detach_timeout", o.detach_timeout, true},
      {"open_timeout", o.open_timeout},
      {"drain_delay", o.drain_delay, true},
      {"drain_timeout", o.drain_timeout, true},
      {"grpc_keepalive_time", o.grpc.keepalive_time},
      {"grpc_keepalive_timeout", o.grpc.keepalive_timeout},
      {"grpc_min_recv_ping_interval_without_data",
       o.grpc.min_recv_ping_interval_without_data, true},
      {"grpc_max_connection_idle", o.grpc.max_connection_idle},
      {"grpc_max_connection_age", o.grpc.max_connection_age},
      {"grpc_max_connection_age_grace", o.grpc.max_connection_age_grace, true},
  };
  for (const DurationRule& rule : rules) {
    if (rule.value > absl::ZeroDuration() ||
        (rule.zero_allowed && rule.value == absl::ZeroDuration())) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "--", rule.flag, "=", absl::FormatDuration(rule.value), ": must be ",
        rule.zero_allowed ? "0 or more" : "above 0"));
  }
  return absl::OkStatus();
}

absl::Status CheckListeners(const ServerOptions& o) {
  const bool tls = !o.tls_cert.empty();
  const struct {
    const char* flag;
    const std::string& value;
    bool unix_allowed;
  } listeners[] = {{"listen", o.listen, true},
                   {"health_listen", o.health_listen, true},
                   {"metrics_listen", o.metrics_listen, false},
                   {"admin_listen", o.admin_listen, true}};
  for (const auto& listener : listeners) {
    const auto address = ParseListenAddress(listener.value);
    if (!address.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", listener.flag, "=", listener.value, ": ",
                       address.status().message()));
    }
    if (address->is_unix && !listener.unix_allowed) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--", listener.flag, "=", listener.value,
          ": HTTP is served over TCP only; give an address and a port"));
    }
  }
  if (!ParseListenAddress(o.listen)->is_loopback && !tls &&
      !o.insecure_allow_remote) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--listen=", o.listen,
        ": plaintext beyond loopback lets anybody who can connect use the "
        "model and read along; give --tls_cert and --tls_key, or say "
        "--insecure_allow_remote"));
  }
  if (!ParseListenAddress(o.admin_listen)->is_loopback) {
    return absl::InvalidArgumentError(
        absl::StrCat("--admin_listen=", o.admin_listen,
                     ": the admin service never leaves the machine; give a "
                     "loopback address or unix:PATH"));
  }
  return absl::OkStatus();
}

absl::Status CheckModel(const ServerOptions& o) {
  if (o.model.empty()) {
    return absl::InvalidArgumentError(
        "--model is required: the path of a GGUF file");
  }
  const bool hash_ok =
      o.model_sha256.empty() || (o.model_sha256.size() == 64 &&
                                 absl::c_all_of(o.model_sha256, [](char c) {
                                   return absl::ascii_isxdigit(c);
                                 }));
  if (!hash_ok) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--model_sha256=", o.model_sha256, ": must be 64 hexadecimal digits"));
  }
  if (!o.kv_dtype.empty() && !cache::FindKvDtype(o.kv_dtype)) {
    const auto name = [](std::string* out, const cache::KvDtypeInfo& info) {
      absl::StrAppend(out, info.name);
    };
    return absl::InvalidArgumentError(
        absl::StrCat("--kv_dtype=", o.kv_dtype, ": must be one of ",
                     absl::StrJoin(cache::kKvDtypes, ", ", name),
                     ", or empty for the backend's own"));
  }
  if (o.speculation != "ngram" && o.speculation != "none") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--speculation=", o.speculation, ": must be ngram or none"));
  }
  constexpr absl::string_view kKernels[] = {"auto", "scalar", "avx2", "avx512",
                                            "avx512_vnni"};
  if (!absl::c_linear_search(kKernels, o.cpu_kernels)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cpu_kernels=", o.cpu_kernels, ": must be one of ",
                     absl::StrJoin(kKernels, ", ")));
  }
  const auto policy = cache::ParsePolicy(o.cache_policy);
  if (policy.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--cache_policy=", o.cache_policy, ": ", policy.status().message()));
}

}  // namespace

absl::Status Validate(const ServerOptions& options) {
  absl::Status status = CheckModel(options);
  if (status.ok()) status = CheckNumbers(options);
  if (status.ok()) status = CheckDurations(options);
  if (status.ok() && options.tls_cert.empty() != options.tls_key.empty()) {
    status = absl::InvalidArgumentError(
        "--tls_cert and --tls_key go together: give both or neither");
  }
  if (status.ok()) status = CheckListeners(options);
  return status;
}

}  // namespace millrace::server
