#include "services/server/runtime.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "backends/model_file/registry.h"
#include "backends/registry.h"
#include "cache/policies/registry.h"
#include "services/rpc/info_conversion.h"
#include "services/rpc/policy_conversion.h"
#include "services/rpc/time_conversion.h"
#include "services/server/engine_health.h"
#include "services/server/flags.h"
#include "services/server/machine.h"

namespace millrace::server {
namespace {

// Of a sequence: the last of its prefix, the first and the last of its tail.
constexpr int kPartialBlocks = 3;
// Above this share of the limit no session is opened.
constexpr double kMemoryRung = 0.95;

// Names without which a client cannot use what this server adds to version 1.
std::vector<std::string> Features() { return {}; }

std::string FileStem(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return name.substr(0, name.rfind('.'));
}

absl::StatusOr<cache::KvDtype> ChooseDtype(const std::string& asked,
                                           const backends::Backend& backend) {
  const auto offered = backend.capabilities().kv_dtypes;
  if (asked.empty()) return offered.front();
  const auto dtype = cache::FindKvDtype(asked);
  if (dtype &&
      std::find(offered.begin(), offered.end(), *dtype) != offered.end()) {
    return *dtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--kv_dtype=", asked, ": backend '", backend.Name(),
                   "' does not have it; leave the flag out"));
}

absl::StatusOr<cache::KvSpec> KvSpecOf(const ServerOptions& options,
                                       const backends::ModelConfig& model,
                                       const backends::Backend& backend) {
  const auto dtype = ChooseDtype(options.kv_dtype, backend);
  if (!dtype.ok()) return dtype.status();
  return cache::KvSpec{.num_layers = model.num_layers,
                       .num_kv_heads = model.num_kv_heads,
                       .head_dim = model.head_dim,
                       .dtype = *dtype};
}

cache::PolicyBackend PolicyBackendOf(const backends::Backend& backend) {
  return {.name = std::string(backend.Name()),
          .attention_scores = backend.capabilities().attention_scores};
}

int PrefillChunkTokens(const ServerOptions& options,
                       const backends::Backend& backend) {
  return options.prefill_chunk_tokens > 0
             ? options.prefill_chunk_tokens
             : backend.capabilities().prefill_chunk_tokens;
}

// Of a sequence that pins nothing, and is not held for a rollback.
cache::PolicyContext PolicyContextOf(const ServerOptions& options,
                                     const backends::ModelConfig& model,
                                     const text::Tokenizer& tokenizer,
                                     const backends::Backend& backend,
                                     const cache::KvSpec& kv) {
  return {.trained_context = model.trained_context,
          .max_resident_tokens =
              options.session_kv_memory_bytes / kv.BytesPerToken(),
          .extra_tokens = PrefillChunkTokens(options, backend),
          .wide_prefix = HasWidePrefix(kv.dtype),
          .has_sink_token = tokenizer.sink_id().has_value(),
          .backend = PolicyBackendOf(backend)};
}

absl::StatusOr<cache::MadePolicy> MakeDefaultPolicy(
    const ServerOptions& options, const cache::PolicyContext& context) {
  const auto config = cache::ParsePolicy(options.cache_policy);
  if (!config.ok()) return config.status();
  return cache::MakePolicy(*config, context);
}

std::string_view StateName(session::State state) {
  switch (state) {
    case session::State::kIdle:
      return "idle";
    case session::State::kReading:
      return "reading";
    case session::State::kWriting:
      return "writing";
    case session::State::kPaused:
      return "paused";
    case session::State::kDetached:
      return "detached";
    case session::State::kClosed:
      return "closed";
  }
  return "closed";
}

}  // namespace

absl::StatusOr<std::unique_ptr<const text::Tokenizer>> MakeTokenizer(
    const ServerOptions& options, const backends::TokenizerMetadata& metadata) {
  std::optional<int32_t> sink_id;
  if (options.sink_token_id) {
    const int64_t id = *options.sink_token_id;
    const auto tokens = static_cast<int64_t>(metadata.tokens.size());
    if (id < 0 || id >= tokens) {
      return absl::InvalidArgumentError(
          absl::StrCat("--sink_token_id=", id, ": must be 0 to ", tokens - 1,
                       ", a token of the model"));
    }
    sink_id = static_cast<int32_t>(id);
  }
  return text::Tokenizer::Create(metadata, sink_id);
}

absl::Status CheckDefaultPolicy(const ServerOptions& options,
                                const backends::ModelConfig& model,
                                const text::Tokenizer& tokenizer,
                                const backends::Backend& backend) {
  const auto kv = KvSpecOf(options, model, backend);
  if (!kv.ok()) return kv.status();
  const auto made = MakeDefaultPolicy(
      options, PolicyContextOf(options, model, tokenizer, backend, *kv));
  if (made.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--cache_policy=", options.cache_policy, ": ", made.status().message()));
}

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Load(
    const ServerOptions& options, const Hooks& hooks) {
  std::unique_ptr<Runtime> runtime(new Runtime(options, hooks));
  absl::Status status = runtime->LoadModel();
  if (!status.ok()) return status;
  return runtime;
}

Runtime::~Runtime() {
  if (engine_) engine_->Stop();
  store_.reset();
}

absl::Status Runtime::LoadModel() {
  const absl::Time start = absl::Now();
  auto backend = backends::NewBackend(
      options_.backend,
      {.num_threads = options_.threads > 0 ? options_.threads : UsableCores(),
       .cpu_kernels = options_.cpu_kernels,
       .deterministic = options_.deterministic});
  if (!backend.ok()) {
    return absl::Status(backend.status().code(),
                        absl::StrCat("--backend=", options_.backend, ": ",
                                     backend.status().message()));
  }
  backend_ = *std::move(backend);
  auto file = backends::OpenModelFile(
      options_.model, {.expected_sha256 = options_.model_sha256});
  if (!file.ok()) return file.status();
  model_name_ = (*file)->config().name;
  if (model_name_.empty()) model_name_ = FileStem(options_.model);
  absl::Status status = MakeText(**file);
  if (status.ok()) status = MakeEngine(**file);
  if (status.ok()) {
    status =
        CheckDefaultPolicy(options_, (*file)->config(), *tokenizer_, *backend_);
  }
  if (!status.ok()) return status;
  CountSessionsThatFit();
  load_seconds_ = absl::ToDoubleSeconds(absl::Now() - start);
  MakeStore();
  MakeServing(**file);
  metrics::ModelLabels labels = {.name = model_name_,
                                 .backend = std::string(backend_->Name()),
                                 .block_tokens = cache::kBlockTokens,
                                 .num_blocks = num_blocks_,
                                 .load_seconds = load_seconds_};
  for (const auto& policy : cache::AllPolicies()) {
    labels.policies.push_back(policy.name);
  }
  for (int i = 0; i < backends::kNumPhases; ++i) {
    labels.phases.emplace_back(backends::PhaseName(i));
  }
  hooks_.metrics->SetModel(labels);
  engine_->SetStepObserver(
      [this](const engine::StepTrace& trace) { Observe(trace); });
  engine_->Start();
  return absl::OkStatus();
}

absl::Status Runtime::MakeText(const backends::ModelFile& file) {
  auto tokenizer = MakeTokenizer(options_, file.tokenizer());
  if (!tokenizer.ok()) return tokenizer.status();
  tokenizer_ = *std::move(tokenizer);
  auto chat = text::ChatFormat::Create(file.tokenizer().chat_template,
                                       tokenizer_.get());
  chat_status_ = chat.status();
  if (chat.ok()) chat_format_ = *std::move(chat);
  return absl::OkStatus();
}

absl::Status Runtime::MakeEngine(const backends::ModelFile& file) {
  const engine::EngineOptions engine_options = {
      .max_decode_rows = backend_->capabilities().decode_rows,
      .prefill_chunk_tokens = PrefillChunkTokens(options_, *backend_)};
  const backends::LoadOptions load{.max_rows =
                                       engine_options.max_decode_rows +
                                       engine_options.prefill_chunk_tokens};
  const backends::ModelConfig& config = file.config();
  const auto kv_spec = KvSpecOf(options_, config, *backend_);
  if (!kv_spec.ok()) return kv_spec.status();
  kv_spec_ = *kv_spec;
  // Of a device's own memory all that is free may be taken.
  const auto own = backend_->AvailableMemory();
  const auto limit = own ? own : ProcessLimit();
  const int64_t kv_bytes =
      options_.kv_memory_bytes > 0
          ? options_.kv_memory_bytes
          : DefaultKvMemory(limit, AvailableMemory(),
                            backend_->EstimateMemory(file, load));
  num_blocks_ = static_cast<int32_t>(
      std::min<int64_t>(kv_bytes / kv_spec_.BytesPerBlock(), INT32_MAX));
  if (num_blocks_ < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv_memory: ", kv_bytes, " bytes hold no block of ",
                     kv_spec_.BytesPerBlock(), " bytes; give more memory"));
  }
  // One that all memory cannot hold would be told to retry, for ever.
  const int partial = kPartialBlocks + HasWidePrefix(kv_spec_.dtype);  // a pair
  options_.session_kv_memory_bytes =
      std::min(options_.session_kv_memory_bytes,
               std::max(num_blocks_ - partial, 1) * kv_spec_.BytesPerBlock());
  serving_.policy_context =
      PolicyContextOf(options_, config, *tokenizer_, *backend_, kv_spec_);
  auto model = backend_->LoadModel(file, load);
  if (!model.ok()) return model.status();
  auto storage = backend_->CreateKvStorage(kv_spec_, num_blocks_);
  if (!storage.ok()) {
    return absl::Status(
        storage.status().code(),
        absl::StrCat("--kv_memory: ", storage.status().message()));
  }
  engine_ = std::make_unique<engine::Engine>(
      *std::move(model), *std::move(storage), engine_options);
  queue_ = std::make_unique<oneshot::AdmissionQueue>(
      engine_.get(),
      oneshot::AdmissionQueue::Options{.max_waiting = options_.max_queue,
                                       .timeout = options_.queue_timeout});
  return absl::OkStatus();
}

void Runtime::CountSessionsThatFit() {
  const auto made = MakeDefaultPolicy(options_, serving_.policy_context);
  if (!made.ok()) return;
  const int64_t blocks = cache::MaxBlocks(
      {.policy = made->policy,
       .max_chunk_tokens = engine_->options().prefill_chunk_tokens,
       .rollback_tokens = session::OpenOptions().rollback_tokens +
                          engine_->extra_rollback_tokens()},
      kv_spec_.dtype);
  sessions_that_fit_ = static_cast<int>(num_blocks_ / blocks);
}

void Runtime::MakeStore() {
  session::StoreOptions store;
  store.max_sessions = options_.max_sessions;
  store.max_pending_input_bytes = options_.max_pending_input_bytes;
  store.session_kv_bytes = options_.session_kv_memory_bytes;
  store.default_idle_timeout = options_.session_idle_timeout;
  store.default_detach_timeout = options_.detach_timeout;
  store.slow_reader_timeout = options_.slow_reader_timeout;
  store.kv_dtype = kv_spec_.dtype;
  store.default_policy = options_.cache_policy;
  store.backend = serving_.policy_context.backend;
  store.log.max_unread_bytes = options_.outbound_queue_bytes;
  session::StoreDependencies deps;
  deps.engine = engine_.get();
  deps.tokenizer = tokenizer_.get();
  deps.chat_format = chat_format_.get();
  deps.chat_status = chat_status_;
  deps.on_event = [this](const std::string& id, absl::string_view policy,
                         const session::EventBody& event) {
    hooks_.recorder->OnEvent(id, policy, event);
  };
  store_ = session::SessionStore::Create(store, deps);
}

void Runtime::MakeServing(const backends::ModelFile& file) {
  serving_.store = store_.get();
  serving_.oneshot.engine = engine_.get();
  serving_.oneshot.queue = queue_.get();
  serving_.oneshot.active = &active_;
  serving_.oneshot.tokenizer = tokenizer_.get();
  serving_.oneshot.log.max_unread_bytes = options_.outbound_queue_bytes;
  serving_.oneshot.on_event = [this](const std::string& id,
                                     absl::string_view policy,
                                     const session::EventBody& event) {
    hooks_.recorder->OnEvent(id, policy, event);
  };
  serving_.text = {tokenizer_.get(), chat_format_.get(), chat_status_};
  rpc::RequestLimits& limits = serving_.limits;
  limits.model_name = model_name_;
  limits.tokenizer = tokenizer_.get();
  limits.default_turn_tokens = options_.default_turn_tokens;
  if (options_.max_turn_tokens > 0) {
    limits.max_turn_tokens = options_.max_turn_tokens;
  }
  limits.max_turn_duration = options_.max_turn_duration;
  limits.max_stop_strings = options_.max_stop_strings;
  limits.max_stop_bytes = options_.max_stop_bytes;
  limits.max_logit_bias = options_.max_logit_bias;
  limits.max_top_logprobs = options_.max_top_logprobs;
  limits.speculation = options_.speculation == "ngram"
                           ? engine::Speculation::kNgram
                           : engine::Speculation::kNone;
  limits.session_idle_timeout = options_.session_idle_timeout;
  limits.detach_timeout = options_.detach_timeout;
  limits.max_pending_input_bytes = options_.max_pending_input_bytes;
  limits.features = Features();
  limits.allow_special_tokens = options_.allow_special_tokens;
  serving_.facts.model =
      rpc::ToModelInfo(model_name_, file, *tokenizer_, chat_status_, kv_spec_);
  serving_.facts.features = limits.features;
  serving_.server_info = ServerInfo();
  serving_.load = [this] { return Load(); };
  serving_.memory_is_short = [this] { return memory_is_short_.load(); };
}

v1::GetServerInfoResponse Runtime::ServerInfo() const {
  v1::GetServerInfoResponse out;
  out.set_version(kVersion);
  for (const std::string& name : backends::CompiledBackends()) {
    v1::BackendInfo* backend = out.add_backends();
    backend->set_name(name);
    if (name != backend_->Name()) continue;
    backend->set_in_use(true);
    backend->set_device(backend_->DeviceInfo());
  }
  for (v1::PolicyInfo& policy :
       rpc::ToPolicyInfos(tokenizer_->sink_id().has_value())) {
    *out.add_policies() = std::move(policy);
  }
  v1::Limits& limits = *out.mutable_limits();
  limits = rpc::ToLimits(serving_.limits);
  limits.set_max_receive_message_bytes(options_.grpc.max_receive_message_bytes);
  limits.set_max_metadata_bytes(options_.grpc.max_metadata_bytes);
  limits.set_max_sessions(options_.max_sessions > 0 ? options_.max_sessions
                                                    : sessions_that_fit_);
  limits.set_max_queue(options_.max_queue);
  *limits.mutable_queue_timeout() = rpc::ToProto(options_.queue_timeout);
  limits.set_kv_memory_bytes(num_blocks_ * kv_spec_.BytesPerBlock());
  limits.set_session_kv_memory_bytes(options_.session_kv_memory_bytes);
  limits.set_outbound_queue_bytes(options_.outbound_queue_bytes);
  limits.set_max_request_id_bytes(options_.max_request_id_bytes);
  *limits.mutable_slow_reader_timeout() =
      rpc::ToProto(options_.slow_reader_timeout);
  *limits.mutable_heartbeat_interval() =
      rpc::ToProto(options_.heartbeat_interval);
  *limits.mutable_open_timeout() = rpc::ToProto(options_.open_timeout);
  for (const std::string& feature : serving_.limits.features) {
    out.add_features(feature);
  }
  *out.mutable_default_session_policy() =
      rpc::PolicyFromText(options_.cache_policy);
  return out;
}

v1::GetLoadResponse Runtime::Load() const {
  v1::GetLoadResponse out;
  std::map<session::State, uint32_t> by_state;
  for (const auto& info : store_->List("", INT32_MAX)) ++by_state[info.state];
  for (const auto& [state, count] : by_state) {
    if (state == session::State::kClosed) continue;
    v1::SessionCount* sessions = out.add_sessions();
    sessions->set_state(rpc::ToProto(state));
    sessions->set_sessions(count);
  }
  const int waiting = queue_->waiting();
  out.set_running_requests(std::max(active_.count() - waiting, 0));
  out.set_waiting_requests(waiting);
  const cache::CacheManager::Stats cache = engine_->stats().cache;
  out.set_total_blocks(cache.num_blocks);
  out.set_reserved_blocks(cache.reserved_blocks);
  out.set_used_blocks(cache.used_blocks);
  out.set_block_tokens(cache::kBlockTokens);
  const LoadMeter::Rates rates = meter_.PerSecond(absl::Now());
  out.set_input_tokens_per_second(rates.read);
  out.set_generated_tokens_per_second(rates.written);
  out.set_draining(draining_);
  return out;
}

void Runtime::Observe(const engine::StepTrace& trace) {
  const double seconds = absl::ToDoubleSeconds(trace.duration);
  longest_step_ = std::max<double>(longest_step_, seconds);
  meter_.Add(absl::Now(), trace.prefill_rows,
             trace.decode_rows + trace.accepted_before);
  hooks_.metrics->Step(seconds, trace.decode_rows + trace.prefill_rows +
                                    trace.draft_rows + trace.dropped_rows);
}

std::optional<int64_t> Runtime::ProcessLimit() const {
  if (options_.memory_limit_bytes > 0) return options_.memory_limit_bytes;
  return MemoryLimit();
}

void Runtime::Tick() {
  if (const auto limit = ProcessLimit()) {
    memory_is_short_ = ResidentBytes() > *limit * kMemoryRung;
  }
  store_->Tick();
  engine_->Post([queue = queue_.get()] { queue->Tick(); });
}

void Runtime::StartDrain(absl::Time deadline) {
  draining_ = true;
  store_->StartDrain(deadline);
  engine_->Post([queue = queue_.get()] { queue->StartDrain(); });
}

bool Runtime::Idle() const {
  return store_->num_sessions() == 0 && active_.count() == 0;
}

void Runtime::FinishDrain() {
  store_->FinishDrain();
  active_.DrainAll();
}

absl::Status Runtime::EngineHealth() const {
  return server::EngineHealth(engine_->stats(),
                              absl::Seconds(longest_step_.load()));
}

metrics::Sample Runtime::Sample() const {
  metrics::Sample sample;
  sample.requests_waiting = queue_->waiting();
  sample.requests_running = hooks_.recorder->running_turns();
  const engine::EngineStats engine = engine_->stats();
  const int64_t block = kv_spec_.BytesPerBlock();
  sample.kv_total_bytes = engine.cache.num_blocks * block;
  sample.kv_reserved_bytes = engine.cache.reserved_blocks * block;
  sample.kv_used_bytes = engine.cache.used_blocks * block;
  for (const auto& info : store_->List("", INT32_MAX)) {
    ++sample.sessions[std::string(StateName(info.state))];
    sample.outbound_queue_bytes += info.unread_bytes;
  }
  sample.last_step_age_seconds = absl::ToDoubleSeconds(engine.progress_age);
  for (int i = 0; i < backends::kNumPhases; ++i) {
    sample.phase_seconds[std::string(backends::PhaseName(i))] =
        absl::ToDoubleSeconds(engine.phase_times[i]);
  }
  sample.drafted_tokens = engine.speculation.drafted;
  sample.accepted_tokens = engine.speculation.accepted;
  const session::StoreStats store = store_->stats();
  sample.paused = store.paused;
  sample.slow_consumers = store.slow_consumers;
  sample.resumed = store.resumed;
  sample.expired = store.expired;
  sample.resident_bytes = ResidentBytes();
  sample.open_fds = OpenFds();
  const auto limit = ProcessLimit();
  if (limit) {
    sample.memory_usage_ratio =
        static_cast<double>(sample.resident_bytes) / *limit;
  }
  return sample;
}

std::string Runtime::Summary() const {
  return absl::StrCat("model ", model_name_, " on ", backend_->Name(), " (",
                      backend_->DeviceInfo(), "), ", num_blocks_,
                      " cache blocks of ", kv_spec_.BytesPerBlock(),
                      " bytes, loaded in ", load_seconds_, " s");
}

}  // namespace millrace::server
