// Metrics counts what the server does, for Prometheus. Names, types and labels
// are listed in README.md; a test holds them to it.
//
//   Metrics metrics({.version = "0.1.0", ...});
//   metrics.SetModel({.name = "SmolLM2", ...});
//   metrics.AdmissionRejected("KV_BUDGET");
//   metrics.Scrape()      // the text that GET /metrics answers
//
// Label values come from closed sets: never a session, a user, a peer or a
// word of text. What nobody tells it, it asks for at each scrape (Sample).
//
// A leaf: depends on nothing of Millrace. Thread-safe.
#ifndef MILLRACE_SERVICES_METRICS_METRICS_H_
#define MILLRACE_SERVICES_METRICS_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Collectable;
}

namespace millrace::metrics {

struct BuildInfo {
  std::string version, commit, grpc, backend;
};

struct ModelLabels {
  std::string name;
  std::string backend;                     // "onednn"
  std::vector<std::string> policies = {};  // all that requests may name
  std::vector<std::string> phases = {};    // of a step
  int block_tokens = 0;
  int64_t num_blocks = 0;
  double load_seconds = 0;
};

// A generation turn that has ended.
struct TurnRecord {
  std::string policy;
  std::string reason;  // lower-case finish reason, "max_tokens"
  double queued_seconds = 0;
  double first_token_seconds = -1;  // since the request; < 0: there was none
  double duration_seconds = 0;
};

// What is asked for at each scrape.
struct Sample {
  int64_t requests_waiting = 0, requests_running = 0;
  int64_t kv_total_bytes = 0, kv_reserved_bytes = 0, kv_used_bytes = 0;
  std::map<std::string, int64_t> sessions;  // by state, lower case
  int64_t outbound_queue_bytes = 0;
  double last_step_age_seconds = 0;
  // Of all steps, by phase; every scrape names the same phases.
  std::map<std::string, double> phase_seconds;
  // Since the start.
  uint64_t paused = 0, slow_consumers = 0, resumed = 0, expired = 0;
  uint64_t drafted_tokens = 0, accepted_tokens = 0;  // by speculation
  int64_t resident_bytes = 0, open_fds = 0;
  double memory_usage_ratio = 0;
};

enum class DrainState { kServing = 0, kLameDuck = 1, kDraining = 2 };

class Metrics {
 public:
  explicit Metrics(const BuildInfo& build);
  ~Metrics();

  // Once, when the model is loaded; series about it exist from then on.
  void SetModel(const ModelLabels& labels);
  // Asks `sampler` at each scrape from now on; null: no more.
  void SetSampler(std::function<Sample()> sampler);
  void SetDrainState(DrainState state);

  // ---- Calls ----
  // `method` is "millrace.v1.SessionService/Connect" and the like; one that is
  // not among `known` methods counts as "other".
  void SetMethods(const std::vector<std::string>& known);
  void RpcStarted(absl::string_view method);
  void RpcFinished(absl::string_view method, absl::string_view code,
                   double seconds);
  // A refusal before acceptance; `reason` as errors.h names it. Reasons that
  // are about the request count as "invalid".
  void AdmissionRejected(absl::string_view reason);
  void AuthFailed(absl::string_view reason);  // "missing" or "wrong"

  // ---- Turns and sessions ----
  void TurnFinished(const TurnRecord& turn);
  // `count` tokens written, each `gap_seconds` after the one before.
  void TokenGaps(absl::string_view policy, uint64_t text_position, int count,
                 double gap_seconds);
  void TokensRead(absl::string_view policy, int64_t count);
  void TokensWritten(absl::string_view policy, int64_t count);
  void TokensEvicted(absl::string_view policy, int64_t count);
  void SessionEnded(absl::string_view reason, double seconds);

  // ---- The engine ----
  void Step(double seconds, int rows);
  void NonfiniteLogits();

  // What GET /metrics answers.
  std::string Scrape() const;
  // The same for prometheus::Exposer.
  std::shared_ptr<prometheus::Collectable> collectable() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace millrace::metrics

#endif  // MILLRACE_SERVICES_METRICS_METRICS_H_
