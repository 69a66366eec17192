// Runtime is everything that needs the model: backend, engine, tokenizer,
// sessions, requests. Made once, when the model is loaded.
//
//   auto runtime = Runtime::Load(options, hooks);   // seconds to minutes
//   gate.Open(&(*runtime)->serving());
#ifndef MILLRACE_SERVICES_SERVER_RUNTIME_H_
#define MILLRACE_SERVICES_SERVER_RUNTIME_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/backend.h"
#include "cache/kv_spec.h"
#include "services/engine/engine.h"
#include "services/metrics/event_recorder.h"
#include "services/metrics/metrics.h"
#include "services/oneshot/active_requests.h"
#include "services/oneshot/admission_queue.h"
#include "services/rpc/serving.h"
#include "services/server/load_meter.h"
#include "services/server/options.h"
#include "services/session/session_store.h"
#include "services/text/chat_format.h"
#include "services/text/tokenizer.h"

namespace millrace::server {

// The model's tokenizer, with the sink token that the options name.
// INVALID_ARGUMENT if that is no token of the model.
absl::StatusOr<std::unique_ptr<const text::Tokenizer>> MakeTokenizer(
    const ServerOptions& options, const backends::TokenizerMetadata& metadata);

// INVALID_ARGUMENT if no session of this model could have the default policy.
absl::Status CheckDefaultPolicy(const ServerOptions& options,
                                const backends::ModelConfig& model,
                                const text::Tokenizer& tokenizer,
                                const backends::Backend& backend);

class Runtime {
 public:
  // What hears of the work; borrowed, outlives the runtime.
  struct Hooks {
    metrics::Metrics* metrics = nullptr;
    metrics::EventRecorder* recorder = nullptr;
  };

  // Reads the model file, makes the backend and reserves memory. The error
  // names what is wrong and, where a flag helps, the flag.
  static absl::StatusOr<std::unique_ptr<Runtime>> Load(
      const ServerOptions& options, const Hooks& hooks);
  ~Runtime();

  const rpc::Serving& serving() const { return serving_; }
  session::SessionStore& store() { return *store_; }

  // Closes what waited too long, starts what can start. About ten times a
  // second.
  void Tick();

  // No new sessions, turns and requests.
  void StartDrain(absl::Time deadline);
  // Nothing is open any more.
  bool Idle() const;
  // Ends what is left.
  void FinishDrain();

  // What keeps the engine from computing, UNAVAILABLE: its last step failed, or
  // there is work and no progress, for 60 s or 20 times the longest step so far
  // if that is more.
  absl::Status EngineHealth() const;

  metrics::Sample Sample() const;
  // For the first log line.
  std::string Summary() const;
  const v1::ModelInfo& model_info() const { return serving_.facts.model; }

 private:
  Runtime(const ServerOptions& options, const Hooks& hooks)
      : options_(options), hooks_(hooks) {}

  absl::Status LoadModel();
  absl::Status MakeEngine(const backends::ModelFile& file);
  absl::Status MakeText(const backends::ModelFile& file);
  void CountSessionsThatFit();
  void MakeStore();
  void MakeServing(const backends::ModelFile& file);
  void Observe(const engine::StepTrace& trace);
  v1::GetServerInfoResponse ServerInfo() const;
  v1::GetLoadResponse Load() const;
  std::optional<int64_t> ProcessLimit() const;

  ServerOptions options_;  // what is in force once the model is loaded
  const Hooks hooks_;
  std::string model_name_;
  cache::KvSpec kv_spec_;
  int32_t num_blocks_ = 0;
  int sessions_that_fit_ = 0;  // with the default policy
  double load_seconds_ = 0;
  LoadMeter meter_;
  std::atomic<double> longest_step_ = 0;  // seconds
  std::atomic<bool> draining_ = false;
  std::atomic<bool> memory_is_short_ = false;

  std::unique_ptr<backends::Backend> backend_;
  std::unique_ptr<const text::Tokenizer> tokenizer_;
  std::unique_ptr<const text::ChatFormat> chat_format_;
  absl::Status chat_status_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<oneshot::AdmissionQueue> queue_;
  oneshot::ActiveRequests active_;
  std::unique_ptr<session::SessionStore> store_;
  rpc::Serving serving_;
};

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_RUNTIME_H_
