#include "services/rpc/session_service.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "millrace/v1/session.grpc.pb.h"
#include "services/errors/errors.h"
#include "services/rpc/error_conversion.h"
#include "services/rpc/request_conversion.h"
#include "services/rpc/stream_call.h"

namespace millrace::rpc {
namespace {

using errors::MakeError;
using errors::Reason;
using grpc::ByteBuffer;
using session::SessionHandle;
using v1::ConnectRequest;

// A read that fails may be a half-close or a broken stream; a broken one is
// reported as cancelled at about the same time. So long we wait for that.
constexpr absl::Duration kHalfCloseWait = absl::Milliseconds(150);
// Headers go out at the latest this long after `open`: within a second.
constexpr absl::Duration kHeadersAfter = absl::Milliseconds(700);

absl::Status Misplaced(Reason reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

// The error of an open whose policy cannot be, its field as the client sent it.
absl::Status WithPolicyPath(const absl::Status& status,
                            const std::string& policy) {
  if (!errors::HasReason(status, Reason::kInvalidCachePolicy) ||
      absl::StartsWith(errors::DetailsOf(status).field, "cache_policy")) {
    return status;
  }
  return WithFieldPrefix(
      status, absl::StrCat("cache_policy", policy.empty() ? "" : ".", policy));
}

absl::Status MemoryIsShort() {
  errors::Details details;
  details.retry_after = absl::Seconds(5);
  return MakeError(absl::StatusCode::kResourceExhausted, Reason::kKvBudget,
                   "the process is near its memory limit and opens no session",
                   details);
}

class ConnectCall;

// How a session reaches the stream that it is attached to. The store may hold
// it a moment longer than the stream lives.
class OwnerLink : public session::StreamOwner {
 public:
  explicit OwnerLink(std::weak_ptr<ConnectCall> call)
      : call_(std::move(call)) {}
  void OnEnd(const absl::Status& status) override;

 private:
  const std::weak_ptr<ConnectCall> call_;
};

class ConnectCall final
    : public StreamCall<grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>> {
 public:
  ConnectCall(grpc::CallbackServerContext* context,
              const ServiceContext& shared)
      : StreamCall(context, shared, "millrace.v1.SessionService/Connect"),
        stream_(session::SessionStore::NewStreamId()),
        started_(absl::Now()) {}

  void Start() {
    const auto serving = call().Admit();
    if (!serving.ok()) {
      End(serving.status());
      return;
    }
    serving_ = *serving;
    link_ = std::make_shared<OwnerLink>(Weak<ConnectCall>());
    ReadNext(&incoming_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      absl::MutexLock lock(&mutex_);
      input_ended_ = absl::Now();
      return;
    }
    ConnectRequest request;
    if (!ParseFrom(incoming_, request)) {
      End(Malformed());
      return;
    }
    const std::shared_ptr<SessionHandle> session = Session();
    if (session == nullptr) {
      OnFirst(request);
    } else {
      OnNext(request, *session);
    }
  }

  // On the engine thread, or where Open found a fault.
  void OnSessionEnd(const absl::Status& status) {
    const bool over = status.ok() || absl::IsUnavailable(status);
    EndLater(status, /*flush=*/over);
  }

 private:
  std::shared_ptr<SessionHandle> Session() {
    absl::MutexLock lock(&mutex_);
    return session_;
  }

  void OnFirst(const ConnectRequest& request) {
    {
      absl::MutexLock lock(&mutex_);
      opening_ = absl::Now();
    }
    switch (request.message_case()) {
      case ConnectRequest::kOpen:
        return Open(request);
      case ConnectRequest::kResume:
        return Resume(request.resume());
      default:
        return End(Misplaced(Reason::kNotOpen,
                             "the first message is neither open nor resume"));
    }
  }

  void Open(const ConnectRequest& request) {
    if (request.has_client_seq() && request.client_seq() != 1) {
      errors::Details details;
      details.metadata.emplace("expected_seq", "1");
      return End(MakeError(
          absl::StatusCode::kFailedPrecondition, Reason::kSequenceGap,
          absl::StrCat("client_seq=", request.client_seq(),
                       " of open; a session's first message is number 1"),
          details));
    }
    auto options = FromProto(request.open(), serving_->limits);
    if (!options.ok()) return Refuse(options.status());
    if (serving_->memory_is_short && serving_->memory_is_short()) {
      return Refuse(MemoryIsShort());
    }
    policy_ = options->policy ? options->policy->name : "";
    serving_->store->Open(*std::move(options), stream_, link_.get(),
                          Attacher());
  }

  void Resume(const v1::ResumeSession& resume) {
    serving_->store->Resume(resume.session_id(), resume.resume_token(),
                            resume.last_sequence_number(), stream_, link_.get(),
                            Attacher());
  }

  // Takes the session over from the engine thread.
  session::SessionStore::OpenCallback Attacher() {
    return [self = Shared<ConnectCall>(), io = shared().io](
               absl::StatusOr<std::shared_ptr<SessionHandle>> session) {
      if (session.ok()) self->Listen(**session);
      io->Post(
          [self, session = std::move(session)] { self->OnAttached(session); });
    };
  }

  void Listen(SessionHandle& session) {
    session.log().SetWakeUp([weak = Weak<ConnectCall>()] {
      if (const auto self = weak.lock()) self->PumpLater();
    });
  }

  void Refuse(const absl::Status& status) {
    shared().metrics->AdmissionRejected(errors::ReasonOf(status));
    End(WithPolicyPath(status, policy_));
  }

  void OnAttached(
      const absl::StatusOr<std::shared_ptr<SessionHandle>>& session) {
    if (!session.ok()) return Refuse(session.status());
    bool gone;
    {
      absl::MutexLock lock(&mutex_);
      session_ = *session;
      gone = ended() || cancelled();
      if (!gone) {
        call().SetSession(session_->id());
        call().AddHeader("x-session-id", session_->id());
        SendHeaders();
      }
    }
    if (gone) return (*session)->Detach(stream_);
    Pump();
    ReadNext(&incoming_);
  }

  void OnNext(const ConnectRequest& request, SessionHandle& session) {
    if (request.has_open() || request.has_resume()) {
      return End(Misplaced(Reason::kAlreadyOpen,
                           "this stream has its session already"));
    }
    if (closing_) {
      return End(Misplaced(Reason::kNotOpen, "the session was closed"));
    }
    closing_ = request.has_close();
    session.Submit(stream_, FromProto(request, serving_->limits));
    ReadNext(&incoming_);
  }

  std::optional<ByteBuffer> NextMessage()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override {
    if (session_ == nullptr) return std::nullopt;
    const auto event = session_->log().Take();
    if (!event) return std::nullopt;
    return Serialize(ToProto(*event, serving_->facts));
  }

  void OnTick(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) override {
    if (ended()) return;
    if (input_ended_ && now - *input_ended_ > kHalfCloseWait) {
      input_ended_.reset();
      shared().io->Post([self = Shared<ConnectCall>()] { self->HalfClose(); });
    }
    if (session_ == nullptr) {
      if (opening_ && now - *opening_ > kHeadersAfter) SendHeaders();
      if (!opening_ && now - started_ > shared().open_timeout) {
        shared().io->Post([self = Shared<ConnectCall>()] {
          self->End(Misplaced(
              Reason::kNotOpen,
              absl::StrCat("no open or resume came within ",
                           absl::FormatDuration(self->shared().open_timeout))));
        });
      }
      return;
    }
    if (Silence(now) > shared().heartbeat_interval) {
      Write(Serialize(HeartbeatEvent()));
    }
  }

  // The client will say no more; a broken stream was found out before.
  void HalfClose() {
    if (cancelled()) return;
    const std::shared_ptr<SessionHandle> session = Session();
    if (session == nullptr) return End(absl::OkStatus());
    if (closing_) return;
    session->Submit(stream_,
                    {.client_seq = std::nullopt, .body = session::HalfClose{}});
  }

  void OnOver() override {
    const std::shared_ptr<SessionHandle> session = Session();
    if (session != nullptr) session->Detach(stream_);
    if (serving_ == nullptr) return;
    // Behind whatever Detach has posted: then nobody holds the link.
    serving_->oneshot.engine->Post([link = std::move(link_)] {});
  }

  const session::StreamId stream_;
  const absl::Time started_;
  const Serving* serving_ = nullptr;
  std::shared_ptr<OwnerLink> link_;
  ByteBuffer incoming_;   // of the read under way
  std::string policy_;    // name of the one asked for
  bool closing_ = false;  // the client said close; reads are in order
  std::shared_ptr<SessionHandle> session_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Time> opening_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Time> input_ended_ ABSL_GUARDED_BY(mutex_);
};

void OwnerLink::OnEnd(const absl::Status& status) {
  if (const auto call = call_.lock()) call->OnSessionEnd(status);
}

class SessionService final
    : public v1::SessionService::WithRawCallbackMethod_Connect<
          v1::SessionService::Service> {
 public:
  explicit SessionService(const ServiceContext& shared) : shared_(shared) {}

  grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* Connect(
      grpc::CallbackServerContext* context) override {
    return MakeCall<ConnectCall>(context, shared_);
  }

 private:
  const ServiceContext& shared_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewSessionService(const ServiceContext& shared) {
  return std::make_unique<SessionService>(shared);
}

}  // namespace millrace::rpc
