#include "services/rpc/score_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "millrace/v1/inference.pb.h"
#include "services/errors/errors.h"
#include "services/oneshot/request_policy.h"
#include "services/oneshot/scoring.h"
#include "services/rpc/error_conversion.h"
#include "services/rpc/policy_conversion.h"
#include "services/rpc/request_conversion.h"
#include "services/rpc/stream_call.h"
#include "services/text/streaming_encoder.h"

namespace millrace::rpc {
namespace {

using errors::MakeError;
using errors::Reason;
using grpc::ByteBuffer;
using oneshot::Scoring;
using text::SpecialTokens;

absl::Status Misplaced(Reason reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

// Makes one text of inputs: adjacent pieces of one kind are joined.
class InputEncoder {
 public:
  explicit InputEncoder(const text::Tokenizer* tokenizer)
      : tokenizer_(tokenizer) {}

  std::vector<int32_t> Add(const session::Input& input) {
    if (const auto* ids = std::get_if<std::vector<int32_t>>(&input)) {
      std::vector<int32_t> out = Finish();
      out.insert(out.end(), ids->begin(), ids->end());
      return out;
    }
    const auto& piece = std::get<session::TextInput>(input);
    const auto kind = piece.parse_special_tokens ? SpecialTokens::kParsed
                                                 : SpecialTokens::kAsText;
    std::vector<int32_t> out;
    if (kind_ != kind) out = Finish();
    if (!encoder_) encoder_.emplace(tokenizer_, kind);
    kind_ = kind;
    const std::vector<int32_t> more = encoder_->Add(piece.text);
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }

  std::vector<int32_t> Finish() {
    if (!encoder_) return {};
    std::vector<int32_t> rest = encoder_->Finish();
    encoder_.reset();
    return rest;
  }

 private:
  const text::Tokenizer* tokenizer_;
  std::optional<text::StreamingEncoder> encoder_;
  SpecialTokens kind_ = SpecialTokens::kAsText;
};

class ScoreCall final
    : public StreamCall<grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>> {
 public:
  ScoreCall(grpc::CallbackServerContext* context, const ServiceContext& shared)
      : StreamCall(context, shared, "millrace.v1.InferenceService/Score"),
        started_(absl::Now()) {}

  void Start() {
    const auto serving = call().Admit();
    if (!serving.ok()) {
      End(serving.status());
      return;
    }
    serving_ = *serving;
    encoder_.emplace(serving_->text.tokenizer);
    ReadNext(&incoming_);
  }

  void OnReadDone(bool ok) override {
    const std::shared_ptr<Scoring> scoring = Current();
    if (!ok) {
      if (scoring == nullptr) return EndWithoutSetup();
      scoring->Add(encoder_->Finish());
      scoring->FinishInput();
      return;
    }
    v1::ScoreRequest request;
    if (!ParseFrom(incoming_, request)) return Fail(Malformed());
    const absl::Status status =
        scoring == nullptr ? OnFirst(request) : OnInput(request, *scoring);
    if (!status.ok()) Fail(status);
  }

 private:
  std::shared_ptr<Scoring> Current() {
    absl::MutexLock lock(&mutex_);
    return scoring_;
  }

  void EndWithoutSetup() {
    if (!cancelled()) {
      End(Misplaced(Reason::kNotOpen, "the stream ended without a setup"));
    }
  }

  // Ends the call at once, whatever it has computed.
  void Fail(const absl::Status& status) {
    OnAbandoned();
    End(status);
  }

  absl::Status OnFirst(const v1::ScoreRequest& request) {
    if (!request.has_setup()) {
      return Misplaced(Reason::kNotOpen, "the first message is no setup");
    }
    auto converted = Convert(request.setup());
    if (!converted.ok()) {
      shared().metrics->AdmissionRejected(errors::ReasonOf(converted.status()));
      return converted.status();
    }
    absl::MutexLock lock(&mutex_);
    set_up_ = true;
    scoring_ = Scoring::Start(
        serving_->oneshot, *std::move(converted),
        [self = Shared<ScoreCall>(), io = shared().io](absl::Status status) {
          io->Post([self, status] { self->OnAdmitted(status); });
        });
    scoring_->SetCallbacks(
        [weak = Weak<ScoreCall>()] {
          if (const auto self = weak.lock()) self->PumpLater();
        },
        [weak = Weak<ScoreCall>(), io = shared().io] {
          io->Post([weak] {
            if (const auto self = weak.lock()) self->ReadOn();
          });
        });
    return absl::OkStatus();
  }

  absl::StatusOr<oneshot::ScoringRequest> Convert(const v1::ScoreSetup& setup) {
    if (setup.has_model()) {
      absl::Status status = CheckModelName(setup.model(), serving_->limits);
      if (!status.ok()) return status;
    }
    oneshot::ScoringRequest out{.id = call().id(), .policy = {}};
    if (setup.has_per_token()) out.per_token = setup.per_token();
    if (setup.has_cache_update_interval_tokens()) {
      const uint32_t interval = setup.cache_update_interval_tokens();
      if (interval < 1 || interval > INT32_MAX) {
        return errors::InvalidField(
            "cache_update_interval_tokens",
            absl::StrCat("cache_update_interval_tokens=", interval,
                         " is not at least 1"));
      }
      out.cache_update_interval_tokens = static_cast<int>(interval);
    }
    std::optional<cache::PolicyConfig> asked;
    if (setup.has_cache_policy()) {
      auto policy = FromProto(setup.cache_policy(), "cache_policy");
      if (!policy.ok()) return policy.status();
      asked = *std::move(policy);
    }
    auto policy = oneshot::MakeRequestPolicy(std::move(asked), std::nullopt, 0,
                                             serving_->policy_context);
    if (!policy.ok()) return policy.status();
    policy_text_ = policy->text;
    out.policy = *std::move(policy);
    return out;
  }

  void OnAdmitted(const absl::Status& status) {
    if (!status.ok()) {
      shared().metrics->AdmissionRejected(errors::ReasonOf(status));
      End(status);
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      SendHeaders();
      scoring_->Add(serving_->text.tokenizer->text_prefix());
    }
    ReadNext(&incoming_);
  }

  absl::Status OnInput(const v1::ScoreRequest& request, Scoring& scoring) {
    if (request.has_setup()) {
      return Misplaced(Reason::kAlreadyOpen, "there was a setup already");
    }
    if (!request.has_input()) {
      return MakeError(absl::StatusCode::kInvalidArgument,
                       Reason::kUnknownMessage,
                       "the message has no arm that this server knows");
    }
    const auto input = FromProto(request.input(), serving_->limits, "input");
    if (!input.ok()) return input.status();
    if (std::holds_alternative<session::MessageInput>(*input)) {
      return errors::InvalidField("input.message",
                                  "Score takes text and token ids, no chat "
                                  "messages");
    }
    scoring.Add(encoder_->Add(*input));
    bool read_on;
    {
      absl::MutexLock lock(&mutex_);
      read_on = scoring.HasRoom();
      waiting_for_room_ = !read_on;
    }
    if (read_on) {
      ReadNext(&incoming_);
    } else if (scoring.HasRoom()) {
      ReadOn();  // room came before we waited for it
    }
    return absl::OkStatus();
  }

  void ReadOn() {
    {
      absl::MutexLock lock(&mutex_);
      if (!std::exchange(waiting_for_room_, false) || ended()) return;
    }
    ReadNext(&incoming_);
  }

  std::optional<ByteBuffer> NextMessage()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override {
    if (scoring_ == nullptr || finished_) return std::nullopt;
    auto event = scoring_->Take();
    if (!event) return std::nullopt;
    v1::ScoreResponse response;
    if (auto* chunk = std::get_if<oneshot::ScoreChunk>(&*event)) {
      v1::ScoreChunk& out = *response.mutable_chunk();
      out.set_first_position(chunk->first_position);
      for (float value : chunk->log_likelihoods) {
        out.add_log_likelihoods(value);
      }
    } else if (auto* update = std::get_if<session::CacheUpdated>(&*event)) {
      *response.mutable_cache_update() = ToProto(*update);
    } else if (auto* progress = std::get_if<oneshot::ScoreProgress>(&*event)) {
      response.mutable_progress()->set_tokens(progress->tokens);
      response.mutable_progress()->set_log_likelihood_sum(progress->sum);
    } else {
      return Finished(std::get<oneshot::ScoreFinished>(*event), response);
    }
    return Serialize(response);
  }

  // Input that does not fit ends the call with a status, as does the server's
  // shutdown; what failed inside is told in the last message.
  std::optional<ByteBuffer> Finished(const oneshot::ScoreFinished& finished,
                                     v1::ScoreResponse& response)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    finished_ = true;
    const bool in_band =
        finished.error.ok() || absl::IsInternal(finished.error);
    shared().io->Post([self = Shared<ScoreCall>(),
                       status = in_band ? absl::OkStatus() : finished.error] {
      self->End(status);
    });
    if (!in_band) return std::nullopt;
    v1::ScoreFinished& out = *response.mutable_finished();
    out.set_tokens(finished.tokens);
    out.set_log_likelihood_sum(finished.sum);
    *out.mutable_usage() = ToProto(finished.usage);
    if (!finished.error.ok()) *out.mutable_error() = ToError(finished.error);
    *out.mutable_cache_policy() = PolicyFromText(policy_text_);
    return Serialize(response);
  }

  void OnTick(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override {
    if (set_up_ || ended() || now - started_ < shared().open_timeout) return;
    set_up_ = true;
    shared().io->Post([self = Shared<ScoreCall>()] {
      self->End(Misplaced(Reason::kNotOpen, "no setup came in time"));
    });
  }

  void OnAbandoned() override {
    if (const auto scoring = Current()) scoring->Cancel();
  }

  void OnOver() override {
    if (Current() == nullptr) return;
    serving_->oneshot.engine->Post(
        [recorder = shared().recorder, id = call().id(),
         why = abandon_reason()] { recorder->OnOver(id, why); });
  }

  const absl::Time started_;
  const Serving* serving_ = nullptr;
  ByteBuffer incoming_;  // of the read under way
  std::optional<InputEncoder> encoder_;
  std::string policy_text_;
  std::shared_ptr<Scoring> scoring_ ABSL_GUARDED_BY(mutex_);
  bool set_up_ ABSL_GUARDED_BY(mutex_) = false;
  bool waiting_for_room_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* NewScoreCall(
    grpc::CallbackServerContext* context, const ServiceContext& shared) {
  return MakeCall<ScoreCall>(context, shared);
}

}  // namespace millrace::rpc
