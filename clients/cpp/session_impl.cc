#include "clients/cpp/session_impl.h"

#include <grpcpp/support/sync_stream.h>

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/cpp/status.h"
#include "clients/cpp/unanswered.h"

namespace millrace::client {
namespace {

using Request = v1::ConnectRequest;
using Response = v1::ConnectResponse;
using Stream = grpc::ClientReaderWriter<Request, Response>;

constexpr int kResumeAttempts = 6;
constexpr absl::Duration kFirstPause = absl::Milliseconds(50);

// A broken connection, as opposed to a refusal, which has a reason.
bool ConnectionLost(const absl::Status& status) {
  return absl::IsUnavailable(status) && ReasonOf(status).empty();
}

class SessionImpl final : public Session {
 public:
  SessionImpl(std::shared_ptr<v1::SessionService::Stub> stub,
              ContextFactory context)
      : stub_(std::move(stub)), make_context_(std::move(context)) {}

  ~SessionImpl() override {
    Cancel();
    if (stream_ != nullptr) Drain();
  }

  absl::Status Open(const v1::OpenSession& open) {
    Request request;
    request.set_client_seq(next_seq_++);
    *request.mutable_open() = open;
    Start(request);
    Response first;
    if (!stream_->Read(&first)) return End();
    opened_ = first.opened();
    last_event_ = first.sequence_number();
    return absl::OkStatus();
  }

  const v1::SessionOpened& opened() const override { return opened_; }

  uint64_t Send(Request request) override {
    absl::MutexLock lock(&mutex_);
    request.set_client_seq(next_seq_++);
    unanswered_.Add(request);
    // If it does not get through, it is sent again once the session is resumed.
    if (CanWrite()) stream_->Write(request);
    return request.client_seq();
  }

  void HalfClose() override {
    absl::MutexLock lock(&mutex_);
    half_closed_ = true;
    if (CanWrite()) stream_->WritesDone();
  }

  absl::StatusOr<Response> Next() override {
    while (stream_ != nullptr) {
      Response event;
      if (stream_->Read(&event)) {
        if (Take(event)) return event;
        continue;
      }
      const absl::Status status = End();
      if (status.ok()) break;
      if (!ConnectionLost(status) || attempts_ == kResumeAttempts) {
        return status;
      }
      Resume();
    }
    return absl::OutOfRangeError("the session has ended");
  }

  void Cancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }

  void SetOnResumed(std::function<void()> on_resumed) override {
    on_resumed_ = std::move(on_resumed);
  }

 private:
  // Begins a stream with `first`.
  void Start(const Request& first) {
    absl::MutexLock lock(&mutex_);
    context_ = make_context_();
    if (cancelled_) context_->TryCancel();
    stream_ = stub_->Connect(context_.get());
    resuming_ = first.has_resume();
    stream_->Write(first);
  }

  // Sends what the events before `resumed` have not answered. Earlier, an
  // answer and its repetition could both come.
  void Resend() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    resuming_ = false;
    for (const auto& [seq, request] : unanswered_.requests()) {
      stream_->Write(request);
    }
    if (half_closed_) stream_->WritesDone();
  }

  bool CanWrite() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stream_ != nullptr && !resuming_;
  }

  // Takes the status of a stream that has nothing more to read.
  absl::Status End() {
    const absl::Status status = ToStatus(stream_->Finish());
    absl::MutexLock lock(&mutex_);
    stream_.reset();
    context_.reset();
    return status;
  }

  void Drain() {
    Response event;
    while (stream_->Read(&event)) {
    }
    (void)End();
  }

  // False for what is no event of the session.
  bool Take(const Response& event) {
    if (std::exchange(attempts_, 0) > 0 && on_resumed_) on_resumed_();
    if (event.has_heartbeat()) return false;
    absl::MutexLock lock(&mutex_);
    last_event_ = event.sequence_number();
    unanswered_.Take(event);
    if (event.has_resumed()) Resend();
    return true;
  }

  void Resume() {
    absl::SleepFor(kFirstPause * (1 << attempts_++));
    Request request;
    v1::ResumeSession& resume = *request.mutable_resume();
    resume.set_session_id(opened_.session_id());
    resume.set_resume_token(opened_.resume_token());
    resume.set_last_sequence_number(last_event_);
    Start(request);
  }

  const std::shared_ptr<v1::SessionService::Stub> stub_;
  const ContextFactory make_context_;
  v1::SessionOpened opened_;
  std::function<void()> on_resumed_;
  uint64_t last_event_ = 0;
  int attempts_ = 0;  // to resume, since something was read

  // Guards what Send needs; only Next replaces context and stream.
  absl::Mutex mutex_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<Stream> stream_;
  Unanswered unanswered_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_seq_ = 1;
  bool resuming_ = false;  // `resumed` has not come yet
  bool half_closed_ = false;
  bool cancelled_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> OpenSessionOn(
    std::shared_ptr<v1::SessionService::Stub> stub, ContextFactory context,
    const v1::OpenSession& open) {
  auto session =
      std::make_unique<SessionImpl>(std::move(stub), std::move(context));
  const absl::Status opened = session->Open(open);
  if (!opened.ok()) return opened;
  return session;
}

}  // namespace millrace::client
