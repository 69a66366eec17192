#include "services/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace millrace::metrics {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;
using Buckets = Histogram::BucketBoundaries;

// Seconds: of queues and steps, of requests, of lives; and rows of a batch.
const Buckets& QueueBuckets() {
  static const Buckets buckets = {
      0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005,
      0.0075, 0.01,    0.025,  0.05,  0.1,    0.25,  0.5,   1,     2.5};
  return buckets;
}
const Buckets& TimeBuckets() {
  static const Buckets buckets = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1,
                                  0.25,  0.5,   1,    2.5,   5,    10,
                                  30,    60,    120,  300,   600};
  return buckets;
}
const Buckets& LifeBuckets() {
  static const Buckets buckets = {1,     10,    60,     600,    3600,
                                  21600, 86400, 604800, 2592000};
  return buckets;
}
const Buckets& RowBuckets() {
  static const Buckets buckets = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  return buckets;
}

constexpr absl::string_view kPositionClasses[] = {"lt_4k", "lt_64k", "lt_1m",
                                                  "ge_1m"};
absl::string_view PositionClass(uint64_t position) {
  if (position < 4096) return kPositionClasses[0];
  if (position < 65536) return kPositionClasses[1];
  if (position < 1'000'000) return kPositionClasses[2];
  return kPositionClasses[3];
}

constexpr const char* kFinishReasons[] = {
    "end_of_turn", "stop",        "max_tokens",   "time_limit", "repetition",
    "capacity",    "interrupted", "input",        "drained",    "error",
    "cancelled",   "deadline",    "slow_consumer"};
constexpr const char* kRejectReasons[] = {"queue_full",    "kv_budget",
                                          "session_limit", "draining",
                                          "model_loading", "invalid"};
constexpr const char* kSessionStates[] = {"idle", "reading", "writing",
                                          "paused", "detached"};
constexpr const char* kCloseReasons[] = {"client", "idle", "deleted", "drained",
                                         "error"};

std::string Known(const std::string& value, const char* const* begin,
                  const char* const* end, const char* otherwise) {
  return std::find(begin, end, value) == end ? otherwise : value;
}

}  // namespace

struct Metrics::Impl : prometheus::Collectable {
  prometheus::Registry registry;
  mutable absl::Mutex mutex;
  std::function<Sample()> sampler ABSL_GUARDED_BY(mutex);
  std::string model ABSL_GUARDED_BY(mutex);
  std::string backend ABSL_GUARDED_BY(mutex);
  std::set<std::string, std::less<>> methods ABSL_GUARDED_BY(mutex);

  Family<Gauge>& NewGauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Family<Counter>& NewCounter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& NewHistogram(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(
        registry);
  }

  Family<Gauge>& requests_waiting =
      NewGauge("millrace_requests_waiting", "Requests that wait for memory.");
  Family<Gauge>& requests_running = NewGauge(
      "millrace_requests_running", "Turns and requests that are being served.");
  Family<Gauge>& kv_usage = NewGauge(
      "millrace_kv_cache_usage_ratio",
      "Key-value cache reserved by sessions and requests, of the total.");
  Family<Gauge>& cache_config =
      NewGauge("millrace_cache_config_info", "The key-value cache's blocks.");
  Family<Histogram>& first_token =
      NewHistogram("millrace_time_to_first_token_seconds",
                   "From request to the first token written.");
  Family<Histogram>& token_gap =
      NewHistogram("millrace_inter_token_latency_seconds",
                   "Between two tokens of a turn, by text position.");
  Family<Histogram>& request_duration = NewHistogram(
      "millrace_request_duration_seconds", "From request to its end.");
  Family<Histogram>& queue_duration =
      NewHistogram("millrace_queue_duration_seconds",
                   "From request to its first computation.");
  Family<Counter>& finished = NewCounter("millrace_requests_finished_total",
                                         "Turns and requests, by how they "
                                         "ended.");
  Family<Counter>& prompt_tokens =
      NewCounter("millrace_prompt_tokens_total", "Tokens read.");
  Family<Counter>& generated_tokens =
      NewCounter("millrace_generated_tokens_total", "Tokens written.");
  Family<Counter>& evicted_tokens =
      NewCounter("millrace_evicted_tokens_total", "Tokens evicted.");
  Family<Gauge>& kv_bytes =
      NewGauge("millrace_kv_cache_bytes", "Key-value cache memory.");
  Family<Gauge>& sessions = NewGauge("millrace_sessions", "Open sessions.");
  Family<Histogram>& session_duration =
      NewHistogram("millrace_session_duration_seconds",
                   "From open to close, by why it closed.");
  Family<Histogram>& step_seconds =
      NewHistogram("millrace_engine_step_seconds", "Computation of one batch.");
  Family<Histogram>& batch_rows =
      NewHistogram("millrace_engine_batch_rows", "Rows of one batch.");
  Family<Counter>& phase_seconds =
      NewCounter("millrace_engine_phase_seconds_total",
                 "Computation of batches, by phase of a step.");
  Family<Counter>& drafted = NewCounter("millrace_drafted_tokens_total",
                                        "Tokens guessed by speculation.");
  Family<Counter>& accepted = NewCounter("millrace_accepted_tokens_total",
                                         "Guessed tokens that proved right.");
  Family<Gauge>& step_age =
      NewGauge("millrace_engine_last_step_age_seconds",
               "Since the last progress of the engine; 0 while idle.");
  Family<Counter>& nonfinite =
      NewCounter("millrace_nonfinite_logits_total",
                 "Turns that failed because logits were not finite.");
  Family<Counter>& rejected = NewCounter("millrace_admission_rejected_total",
                                         "Requests refused before acceptance.");
  Family<Counter>& slow_consumers =
      NewCounter("millrace_slow_consumer_closed_total",
                 "Streams ended because the client never read.");
  Family<Counter>& paused =
      NewCounter("millrace_stream_paused_total",
                 "Times that a session waited for its reader.");
  Family<Gauge>& outbound =
      NewGauge("millrace_outbound_queue_bytes",
               "Output that waits to be sent, sum over sessions.");
  Family<Gauge>& drain_state =
      NewGauge("millrace_drain_state", "0 serving, 1 lame duck, 2 draining.");
  Family<Gauge>& load_seconds =
      NewGauge("millrace_model_load_seconds", "Loading the model took.");
  Family<Gauge>& loaded =
      NewGauge("millrace_model_loaded", "1 once the model is loaded.");
  Family<Gauge>& build_info =
      NewGauge("millrace_build_info", "Always 1; labels tell the build.");
  Family<Counter>& rpc_started =
      NewCounter("millrace_rpc_started_total", "Calls started.");
  Family<Histogram>& rpc_duration =
      NewHistogram("millrace_rpc_duration_seconds", "Calls, start to end.");
  Family<Gauge>& resident = NewGauge("millrace_process_resident_bytes",
                                     "Physical memory of the process.");
  Family<Gauge>& open_fds =
      NewGauge("millrace_process_open_fds", "Open file descriptors.");
  Family<Gauge>& memory_ratio =
      NewGauge("millrace_memory_usage_ratio",
               "Physical memory, of the limit; 0 without a limit.");
  Family<Counter>& resumed =
      NewCounter("millrace_sessions_resumed_total",
                 "Sessions taken up again on a new stream.");
  Family<Counter>& expired = NewCounter("millrace_sessions_expired_total",
                                        "Sessions that waited too long.");
  Family<Counter>& auth_failures =
      NewCounter("millrace_auth_failures_total", "Calls without credentials.");

  Labels ModelLabel() const ABSL_LOCKS_EXCLUDED(mutex) {
    absl::MutexLock lock(&mutex);
    return {{"model", model}};
  }
  Labels PolicyLabels(absl::string_view policy) const {
    Labels labels = ModelLabel();
    labels["policy"] = std::string(policy);
    return labels;
  }
  std::string Method(absl::string_view method) const {
    absl::MutexLock lock(&mutex);
    return methods.contains(method) ? std::string(method) : "other";
  }

  void AddFixedSeries();
  void AddModelSeries(const ModelLabels& labels);
  void Apply(const Sample& sample) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  std::vector<prometheus::MetricFamily> Collect() const override;
};

// Series that do not depend on the model exist from the start, at 0: a rate
// over a series that appears late misses its first event.
void Metrics::Impl::AddFixedSeries() {
  for (const char* reason : kRejectReasons) rejected.Add({{"reason", reason}});
  for (const char* state : kSessionStates) sessions.Add({{"state", state}});
  for (const char* reason : kCloseReasons) {
    session_duration.Add({{"reason", reason}}, LifeBuckets());
  }
  for (const char* reason : {"missing", "wrong"}) {
    auth_failures.Add({{"reason", reason}});
  }
  for (auto* family : {&slow_consumers, &paused}) family->Add({});
  for (const char* reason : {"client"}) resumed.Add({{"reason", reason}});
  for (const char* reason : {"idle"}) expired.Add({{"reason", reason}});
  for (auto* family :
       {&outbound, &drain_state, &resident, &open_fds, &memory_ratio}) {
    family->Add({});
  }
  rpc_started.Add({{"method", "other"}});
  rpc_duration.Add({{"method", "other"}, {"code", "OK"}}, TimeBuckets());
}

void Metrics::Impl::AddModelSeries(const ModelLabels& labels) {
  const Labels of_model = {{"model", labels.name}};
  for (auto* family :
       {&requests_waiting, &requests_running, &kv_usage, &step_age}) {
    family->Add(of_model);
  }
  for (const char* state : {"used", "reserved", "total"}) {
    kv_bytes.Add({{"model", labels.name}, {"state", state}});
  }
  nonfinite.Add(of_model);
  request_duration.Add(of_model, TimeBuckets());
  queue_duration.Add(of_model, TimeBuckets());
  for (const char* reason : kFinishReasons) {
    finished.Add({{"model", labels.name}, {"reason", reason}});
  }
  for (const std::string& policy : labels.policies) {
    const Labels both = PolicyLabels(policy);
    for (auto* family : {&prompt_tokens, &generated_tokens, &evicted_tokens}) {
      family->Add(both);
    }
    first_token.Add(both, TimeBuckets());
    for (absl::string_view position : kPositionClasses) {
      Labels all = both;
      all["position_class"] = std::string(position);
      token_gap.Add(all, QueueBuckets());
    }
  }
  drafted.Add(of_model);
  accepted.Add(of_model);
  for (const std::string& phase : labels.phases) {
    phase_seconds.Add({{"model", labels.name}, {"phase", phase}});
  }
  const Labels on = {{"model", labels.name}, {"backend", labels.backend}};
  step_seconds.Add(on, QueueBuckets());
  batch_rows.Add(on, RowBuckets());
  cache_config
      .Add({{"model", labels.name},
            {"block_size", absl::StrCat(labels.block_tokens)},
            {"num_blocks", absl::StrCat(labels.num_blocks)}})
      .Set(1);
  load_seconds.Add(of_model).Set(labels.load_seconds);
  loaded.Add(of_model).Set(1);
}

void Metrics::Impl::Apply(const Sample& sample) {
  const Labels of_model = {{"model", model}};
  requests_waiting.Add(of_model).Set(sample.requests_waiting);
  requests_running.Add(of_model).Set(sample.requests_running);
  const double total = std::max<int64_t>(sample.kv_total_bytes, 1);
  kv_usage.Add(of_model).Set(sample.kv_reserved_bytes / total);
  const std::pair<const char*, int64_t> memory[] = {
      {"total", sample.kv_total_bytes},
      {"reserved", sample.kv_reserved_bytes},
      {"used", sample.kv_used_bytes}};
  for (const auto& [state, bytes] : memory) {
    kv_bytes.Add({{"model", model}, {"state", state}}).Set(bytes);
  }
  for (const char* state : kSessionStates) {
    const auto found = sample.sessions.find(state);
    sessions.Add({{"state", state}})
        .Set(found == sample.sessions.end() ? 0 : found->second);
  }
  outbound.Add({}).Set(sample.outbound_queue_bytes);
  step_age.Add(of_model).Set(sample.last_step_age_seconds);
  const auto advance = [](Counter& counter, double now) {
    if (now > counter.Value()) counter.Increment(now - counter.Value());
  };
  for (const auto& [phase, seconds] : sample.phase_seconds) {
    advance(phase_seconds.Add({{"model", model}, {"phase", phase}}), seconds);
  }
  advance(drafted.Add({{"model", model}}), sample.drafted_tokens);
  advance(accepted.Add({{"model", model}}), sample.accepted_tokens);
  advance(paused.Add({}), sample.paused);
  advance(slow_consumers.Add({}), sample.slow_consumers);
  advance(resumed.Add({{"reason", "client"}}), sample.resumed);
  advance(expired.Add({{"reason", "idle"}}), sample.expired);
  resident.Add({}).Set(sample.resident_bytes);
  open_fds.Add({}).Set(sample.open_fds);
  memory_ratio.Add({}).Set(sample.memory_usage_ratio);
}

std::vector<prometheus::MetricFamily> Metrics::Impl::Collect() const {
  std::function<Sample()> ask;
  {
    absl::MutexLock lock(&mutex);
    ask = sampler;
  }
  if (ask) {
    // Outside the lock: whoever is asked may be telling us something.
    const Sample sample = ask();
    absl::MutexLock lock(&mutex);
    const_cast<Impl*>(this)->Apply(sample);
  }
  return registry.Collect();
}

Metrics::Metrics(const BuildInfo& build) : impl_(std::make_shared<Impl>()) {
  impl_->AddFixedSeries();
  impl_->build_info
      .Add({{"version", build.version},
            {"commit", build.commit},
            {"grpc", build.grpc},
            {"backend", build.backend}})
      .Set(1);
}

Metrics::~Metrics() = default;

void Metrics::SetModel(const ModelLabels& labels) {
  {
    absl::MutexLock lock(&impl_->mutex);
    impl_->model = labels.name;
    impl_->backend = labels.backend;
  }
  impl_->AddModelSeries(labels);
}

void Metrics::SetSampler(std::function<Sample()> sampler) {
  absl::MutexLock lock(&impl_->mutex);
  impl_->sampler = std::move(sampler);
}

void Metrics::SetDrainState(DrainState state) {
  impl_->drain_state.Add({}).Set(static_cast<int>(state));
}

void Metrics::SetMethods(const std::vector<std::string>& known) {
  absl::MutexLock lock(&impl_->mutex);
  impl_->methods = {known.begin(), known.end()};
}

void Metrics::RpcStarted(absl::string_view method) {
  impl_->rpc_started.Add({{"method", impl_->Method(method)}}).Increment();
}

void Metrics::RpcFinished(absl::string_view method, absl::string_view code,
                          double seconds) {
  impl_->rpc_duration
      .Add({{"method", impl_->Method(method)}, {"code", std::string(code)}},
           TimeBuckets())
      .Observe(seconds);
}

void Metrics::AdmissionRejected(absl::string_view reason) {
  impl_->rejected
      .Add({{"reason",
             Known(absl::AsciiStrToLower(reason), std::begin(kRejectReasons),
                   std::end(kRejectReasons), "invalid")}})
      .Increment();
}

void Metrics::AuthFailed(absl::string_view reason) {
  impl_->auth_failures.Add({{"reason", std::string(reason)}}).Increment();
}

void Metrics::TurnFinished(const TurnRecord& turn) {
  Labels labels = impl_->ModelLabel();
  impl_->request_duration.Add(labels, TimeBuckets())
      .Observe(turn.duration_seconds);
  impl_->queue_duration.Add(labels, TimeBuckets()).Observe(turn.queued_seconds);
  labels["reason"] = turn.reason;
  impl_->finished.Add(labels).Increment();
  if (turn.first_token_seconds >= 0) {
    impl_->first_token.Add(impl_->PolicyLabels(turn.policy), TimeBuckets())
        .Observe(turn.first_token_seconds);
  }
}

void Metrics::TokenGaps(absl::string_view policy, uint64_t text_position,
                        int count, double gap_seconds) {
  Labels labels = impl_->PolicyLabels(policy);
  labels["position_class"] = std::string(PositionClass(text_position));
  Histogram& histogram = impl_->token_gap.Add(labels, QueueBuckets());
  for (int i = 0; i < count; ++i) histogram.Observe(gap_seconds);
}

void Metrics::TokensRead(absl::string_view policy, int64_t count) {
  impl_->prompt_tokens.Add(impl_->PolicyLabels(policy)).Increment(count);
}
void Metrics::TokensWritten(absl::string_view policy, int64_t count) {
  impl_->generated_tokens.Add(impl_->PolicyLabels(policy)).Increment(count);
}
void Metrics::TokensEvicted(absl::string_view policy, int64_t count) {
  impl_->evicted_tokens.Add(impl_->PolicyLabels(policy)).Increment(count);
}

void Metrics::SessionEnded(absl::string_view reason, double seconds) {
  impl_->session_duration.Add({{"reason", std::string(reason)}}, LifeBuckets())
      .Observe(seconds);
}

void Metrics::Step(double seconds, int rows) {
  Labels labels = impl_->ModelLabel();
  {
    absl::MutexLock lock(&impl_->mutex);
    labels["backend"] = impl_->backend;
  }
  impl_->step_seconds.Add(labels, QueueBuckets()).Observe(seconds);
  impl_->batch_rows.Add(labels, RowBuckets()).Observe(rows);
}

void Metrics::NonfiniteLogits() {
  impl_->nonfinite.Add(impl_->ModelLabel()).Increment();
}

std::string Metrics::Scrape() const {
  return prometheus::TextSerializer().Serialize(impl_->Collect());
}

std::shared_ptr<prometheus::Collectable> Metrics::collectable() const {
  return impl_;
}

}  // namespace millrace::metrics
