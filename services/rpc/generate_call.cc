#include "services/rpc/generate_call.h"

#include <utility>

#include "millrace/v1/inference.pb.h"
#include "services/errors/errors.h"
#include "services/oneshot/generation.h"
#include "services/oneshot/prompt.h"
#include "services/oneshot/request_policy.h"
#include "services/rpc/error_conversion.h"
#include "services/rpc/options_conversion.h"
#include "services/rpc/policy_conversion.h"
#include "services/rpc/request_conversion.h"
#include "services/rpc/stream_call.h"

namespace millrace::rpc {
namespace {

using oneshot::Generation;

v1::GenerateFinished ToFinished(const session::TurnFinished& finished) {
  v1::GenerateFinished out;
  out.set_reason(ToProto(finished.reason));
  if (finished.stop_match) {
    *out.mutable_stop_match() = ToProto(*finished.stop_match);
  }
  *out.mutable_usage() = ToProto(finished.usage);
  if (!finished.error.ok()) *out.mutable_error() = ToError(finished.error);
  return out;
}

// The most tokens that the text can have; nullopt: no limit.
std::optional<int64_t> ExpectedTokens(const oneshot::Prompt& prompt,
                                      const engine::StoppingOptions& stopping) {
  constexpr uint64_t kHuge = uint64_t{1} << 40;
  if (!stopping.max_tokens) return std::nullopt;
  return static_cast<int64_t>(prompt.ids.size() +
                              std::min(*stopping.max_tokens, kHuge));
}

class GenerateCall final
    : public StreamCall<grpc::ServerWriteReactor<grpc::ByteBuffer>> {
 public:
  GenerateCall(grpc::CallbackServerContext* context,
               const ServiceContext& shared, const grpc::ByteBuffer& request)
      : StreamCall(context, shared, "millrace.v1.InferenceService/Generate"),
        request_bytes_(request) {}

  void Start() {
    absl::Status status = TryStart();
    request_bytes_.Clear();
    if (status.ok()) return;
    shared().metrics->AdmissionRejected(errors::ReasonOf(status));
    End(status);
  }

 private:
  absl::Status TryStart() {
    const auto serving = call().Admit();
    if (!serving.ok()) return serving.status();
    serving_ = *serving;
    v1::GenerateRequest request;
    if (!ParseFrom(request_bytes_, request)) return Malformed();
    auto converted = Convert(request, **serving);
    if (!converted.ok()) return converted.status();
    absl::MutexLock lock(&mutex_);
    generation_ = Generation::Start(
        (*serving)->oneshot, *std::move(converted),
        [self = Shared<GenerateCall>(), io = shared().io](absl::Status status) {
          io->Post([self, status] { self->OnAdmitted(status); });
        });
    generation_->log().SetWakeUp([weak = Weak<GenerateCall>()] {
      if (const auto self = weak.lock()) self->PumpLater();
    });
    return absl::OkStatus();
  }

  absl::StatusOr<oneshot::GenerationRequest> Convert(
      const v1::GenerateRequest& request, const Serving& serving) {
    if (request.has_model()) {
      absl::Status status = CheckModelName(request.model(), serving.limits);
      if (!status.ok()) return status;
    }
    const auto inputs = FromProto(request.inputs(), serving.limits);
    if (!inputs.ok()) return inputs.status();
    auto options = GenerationFrom(request, serving.limits);
    if (!options.ok()) return options.status();
    auto prompt = oneshot::BuildPrompt(*inputs, serving.text, true);
    if (!prompt.ok()) return prompt.status();
    if (prompt->ids.empty()) {
      return errors::InvalidField("inputs", "the prompt has no tokens");
    }
    std::optional<cache::PolicyConfig> asked;
    if (request.has_cache_policy()) {
      auto policy = FromProto(request.cache_policy(), "cache_policy");
      if (!policy.ok()) return policy.status();
      asked = *std::move(policy);
    }
    auto policy = oneshot::MakeRequestPolicy(
        std::move(asked), ExpectedTokens(*prompt, options->stopping),
        prompt->pinned_tokens, serving.policy_context);
    if (!policy.ok()) return policy.status();
    accepted_.set_input_tokens(prompt->ids.size());
    *accepted_.mutable_effective_options() =
        ToProto(*options, policy->text, serving.limits.model_name);
    return oneshot::GenerationRequest{.id = call().id(),
                                      .prompt = std::move(prompt->ids),
                                      .policy = *std::move(policy),
                                      .options = *std::move(options)};
  }

  void OnAdmitted(const absl::Status& status) {
    if (!status.ok()) {
      shared().metrics->AdmissionRejected(errors::ReasonOf(status));
      End(status);
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      admitted_ = true;
    }
    Pump();
  }

  std::optional<grpc::ByteBuffer> NextMessage()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override {
    if (!admitted_ || finished_) return std::nullopt;
    v1::GenerateResponse response;
    if (!std::exchange(told_accepted_, true)) {
      *response.mutable_accepted() = std::move(accepted_);
      return Serialize(response);
    }
    const auto event = generation_->log().Take();
    if (!event) return std::nullopt;
    if (const auto* output = std::get_if<session::Output>(&event->body)) {
      *response.mutable_output() = ToProto(*output);
    } else if (const auto* update =
                   std::get_if<session::CacheUpdated>(&event->body)) {
      *response.mutable_cache_update() = ToProto(*update);
    } else {
      finished_ = true;
      *response.mutable_finished() =
          ToFinished(std::get<session::TurnFinished>(event->body));
      shared().io->Post(
          [self = Shared<GenerateCall>()] { self->End(absl::OkStatus()); });
    }
    return Serialize(response);
  }

  void OnAbandoned() override {
    std::shared_ptr<Generation> generation;
    {
      absl::MutexLock lock(&mutex_);
      generation = generation_;
    }
    if (generation) generation->Cancel();
  }

  void OnOver() override {
    absl::MutexLock lock(&mutex_);
    if (!generation_) return;
    // Behind whatever the engine still says about it.
    serving_->oneshot.engine->Post(
        [recorder = shared().recorder, id = call().id(),
         why = abandon_reason()] { recorder->OnOver(id, why); });
  }

  grpc::ByteBuffer request_bytes_;
  const Serving* serving_ = nullptr;
  v1::GenerateAccepted accepted_;
  std::shared_ptr<Generation> generation_ ABSL_GUARDED_BY(mutex_);
  bool admitted_ ABSL_GUARDED_BY(mutex_) = false;
  bool told_accepted_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* NewGenerateCall(
    grpc::CallbackServerContext* context, const ServiceContext& shared,
    const grpc::ByteBuffer& request) {
  return MakeCall<GenerateCall>(context, shared, request);
}

}  // namespace millrace::rpc
