#include "services/server/server.h"

#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backends/model_file/registry.h"
#include "backends/registry.h"
#include "services/auth/bearer_token.h"
#include "services/metrics/event_recorder.h"
#include "services/metrics/json_log.h"
#include "services/metrics/metrics.h"
#include "services/metrics/metrics_listener.h"
#include "services/rpc/health.h"
#include "services/rpc/serving.h"
#include "services/server/flags.h"
#include "services/server/listeners.h"
#include "services/server/machine.h"
#include "services/server/runtime.h"
#include "services/server/signals.h"

namespace millrace::server {
namespace {

using metrics::DrainState;
using metrics::Level;

constexpr absl::Duration kTick = absl::Milliseconds(100);
// For streams to send what is queued, once everything has ended.
constexpr absl::Duration kFlushTime = absl::Milliseconds(500);

class Server {
 public:
  explicit Server(const ServerOptions& options)
      : options_(options),
        log_(metrics::JsonLog::ToStderr(options.log_level)),
        metrics_({.version = kVersion,
                  .commit = "unknown",
                  .grpc = GrpcVersion(),
                  .backend = options.backend}),
        recorder_(&metrics_),
        health_(HealthNames()) {}

  ~Server() { TakeApart(); }

  absl::Status Run() {
    absl::Status status = Listen();
    if (status.ok()) status = Load();
    if (!status.ok()) return status;
    if (!runtime_) return absl::OkStatus();  // told to end while loading
    SayReady();
    while (!WaitForSignal(kTick)) Tick();
    Drain();
    log_.Write(Level::kInfo, "exit", "drained");
    return absl::OkStatus();
  }

 private:
  absl::Status Listen() {
    if (!options_.auth_token_file.empty()) {
      auto token = auth::BearerToken::FromFile(options_.auth_token_file);
      if (!token.ok()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--auth_token_file: ", token.status().message()));
      }
      token_ = *std::move(token);
    }
    context_.gate = &gate_;
    context_.io = &io_;
    context_.metrics = &metrics_;
    context_.recorder = &recorder_;
    context_.log = &log_;
    context_.token = token_ ? &*token_ : nullptr;
    context_.max_request_id_bytes = options_.max_request_id_bytes;
    context_.heartbeat_interval = options_.heartbeat_interval;
    context_.open_timeout = options_.open_timeout;
    metrics_.SetMethods(MethodNames());
    health_.Set("liveness", true);
    auto listeners = Listeners::Start(options_, context_, &health_);
    if (!listeners.ok()) return listeners.status();
    listeners_ = *std::move(listeners);
    auto http =
        metrics::MetricsListener::Start(options_.metrics_listen, metrics_);
    if (!http.ok()) {
      return absl::Status(
          http.status().code(),
          absl::StrCat("--metrics_listen: ", http.status().message()));
    }
    http_ = *std::move(http);
    return absl::OkStatus();
  }

  // Loads in a thread of its own, so that a signal ends even a long load.
  absl::Status Load() {
    std::promise<absl::StatusOr<std::unique_ptr<Runtime>>> promise;
    auto loaded = promise.get_future();
    std::thread loader([&] {
      promise.set_value(Runtime::Load(
          options_, {.metrics = &metrics_, .recorder = &recorder_}));
    });
    while (loaded.wait_for(std::chrono::seconds(0)) !=
           std::future_status::ready) {
      if (!WaitForSignal(kTick)) continue;
      log_.Write(Level::kInfo, "exit", "told to end while loading the model");
      std::_Exit(EXIT_SUCCESS);  // nothing is open yet
    }
    loader.join();
    auto runtime = loaded.get();
    if (!runtime.ok()) return runtime.status();
    runtime_ = *std::move(runtime);
    metrics_.SetSampler([this] { return runtime_->Sample(); });
    gate_.Open(&runtime_->serving());
    SetServing(true);
    return absl::OkStatus();
  }

  void SayReady() {
    metrics::LogFields fields = {
        {"version", std::string(kVersion)},
        {"model_sha256", runtime_->model_info().sha256()},
        {"threads",
         int64_t{options_.threads > 0 ? options_.threads : UsableCores()}}};
    for (const auto& [flag, value] : ChangedFlags()) {
      fields.emplace_back("flag_" + flag, value);
    }
    log_.Write(Level::kInfo, "ready", runtime_->Summary(), fields);
    std::printf(
        "{\"event\":\"ready\",\"port\":%d,\"health_port\":%d,"
        "\"metrics_port\":%d,\"admin_port\":%d}\n",
        listeners_->data_port(), listeners_->health_port(), http_->port(),
        listeners_->admin_port());
    std::fflush(stdout);
  }

  // Everything but liveness.
  void SetServing(bool serving) {
    for (const std::string& name : HealthNames()) {
      if (name != "liveness") health_.Set(name, serving);
    }
  }

  void Tick() {
    runtime_->Tick();
    const absl::Status health = runtime_->EngineHealth();
    if (std::exchange(alive_, health.ok()) == alive_) return;
    if (alive_) {
      log_.Write(Level::kInfo, "engine_recovered", "the engine computes again");
    } else {
      log_.Write(Level::kError, "engine_failed", health.message());
    }
    health_.Set("liveness", alive_);
    SetServing(alive_ && !draining_);
  }

  // Ticks until the deadline, a signal, or the end of all work.
  // Returns whether a signal came.
  bool TickUntil(absl::Time deadline, bool stop_when_idle) {
    while (absl::Now() < deadline && !(stop_when_idle && runtime_->Idle())) {
      if (WaitForSignal(std::min(kTick, deadline - absl::Now()))) return true;
      Tick();
    }
    return false;
  }

  void Drain() {
    draining_ = true;
    SetServing(false);
    metrics_.SetDrainState(DrainState::kLameDuck);
    log_.Write(Level::kInfo, "drain", "readiness is off");
    bool cut = TickUntil(absl::Now() + options_.drain_delay, false);
    const absl::Time deadline =
        absl::Now() + (cut ? absl::ZeroDuration() : options_.drain_timeout);
    metrics_.SetDrainState(DrainState::kDraining);
    log_.Write(Level::kInfo, "drain", "no new sessions, turns and requests",
               {{"sessions", int64_t{runtime_->store().num_sessions()}}});
    runtime_->StartDrain(deadline);
    if (!cut) TickUntil(deadline, /*stop_when_idle=*/true);
    if (!runtime_->Idle()) {
      log_.Write(Level::kInfo, "drain", "ending what is left",
                 {{"sessions", int64_t{runtime_->store().num_sessions()}}});
      runtime_->FinishDrain();
      TickUntil(absl::Now() + kFlushTime, /*stop_when_idle=*/true);
    }
  }

  // Streams first, then what they call, then what that calls.
  void TakeApart() {
    // The HTTP server takes half a second to stop, whatever it does.
    std::thread http([this] { http_.reset(); });
    if (listeners_) listeners_->Shutdown(kFlushTime);
    listeners_.reset();
    http.join();
    metrics_.SetSampler(nullptr);
    runtime_.reset();
    io_.Stop();
  }

  const ServerOptions options_;
  metrics::JsonLog log_;
  metrics::Metrics metrics_;
  metrics::EventRecorder recorder_;
  rpc::HealthStates health_;
  rpc::ServingGate gate_;
  rpc::IoThread io_;
  std::optional<auth::BearerToken> token_;
  rpc::ServiceContext context_;
  std::unique_ptr<Listeners> listeners_;
  std::unique_ptr<metrics::MetricsListener> http_;
  std::unique_ptr<Runtime> runtime_;
  bool alive_ = true;
  bool draining_ = false;
};

}  // namespace

absl::Status RunServer(const ServerOptions& options) {
  return Server(options).Run();
}

absl::Status CheckConfig(const ServerOptions& options) {
  if (!options.auth_token_file.empty()) {
    const auto token = auth::BearerToken::FromFile(options.auth_token_file);
    if (!token.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--auth_token_file: ", token.status().message()));
    }
  }
  const auto backend = backends::NewBackend(
      options.backend, {.num_threads = 1, .cpu_kernels = options.cpu_kernels});
  if (!backend.ok()) {
    return absl::Status(backend.status().code(),
                        absl::StrCat("--backend=", options.backend, ": ",
                                     backend.status().message()));
  }
  const auto file = backends::OpenModelFile(
      options.model, {.expected_sha256 = options.model_sha256});
  if (!file.ok()) return file.status();
  const auto tokenizer = MakeTokenizer(options, (*file)->tokenizer());
  if (!tokenizer.ok()) return tokenizer.status();
  return CheckDefaultPolicy(options, (*file)->config(), **tokenizer, **backend);
}

}  // namespace millrace::server
