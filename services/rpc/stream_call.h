// StreamCall is the sending half of a streaming call: one write at a time,
// what is ready when it can start, and a status after the last one.
//
//   class CountCall : public StreamCall<grpc::ServerWriteReactor<ByteBuffer>> {
//     std::optional<grpc::ByteBuffer> NextMessage() override { ... }
//   };
//   Pump();                     // there may be something to send
//   End(status, flush)          // no more, or none after what is queued
//
// It owns itself: made by MakeCall, alive until gRPC is done with it, longer
// where somebody holds a pointer. Everything is for any thread; NextMessage is
// called under mutex(), never on the engine thread if Pump is not.
#ifndef MILLRACE_SERVICES_RPC_STREAM_CALL_H_
#define MILLRACE_SERVICES_RPC_STREAM_CALL_H_

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/rpc/call.h"

namespace millrace::rpc {

template <typename Reactor>
class StreamCall : public Reactor,
                   public Ticking,
                   public std::enable_shared_from_this<StreamCall<Reactor>> {
 public:
  StreamCall(grpc::CallbackServerContext* context, const ServiceContext& shared,
             std::string method)
      : context_(context),
        shared_(shared),
        call_(context, shared, std::move(method)),
        last_write_(absl::Now()) {}

  // Keeps the call alive until gRPC is done with it.
  void Own() {
    self_ = this->shared_from_this();
    shared_.io->Watch(std::weak_ptr<Ticking>(self_));
  }

  // Sends what is ready.
  void Pump() {
    absl::MutexLock lock(&mutex_);
    Advance();
  }

  // The same on the I/O thread: cheap, for the engine thread.
  void PumpLater() {
    if (pump_posted_.exchange(true)) return;
    shared_.io->Post([self = this->shared_from_this()] {
      self->pump_posted_ = false;
      self->Pump();
    });
  }

  // Ends the call with a status, after what is queued if `flush`. The first
  // end counts.
  void End(const absl::Status& status, bool flush = false) {
    absl::MutexLock lock(&mutex_);
    SetEnd(status, flush);
    Advance();
  }

  // The same from the engine thread: nothing that is not to be flushed is taken
  // once this has returned; the status goes out on the I/O thread.
  void EndLater(const absl::Status& status, bool flush) {
    {
      absl::MutexLock lock(&mutex_);
      SetEnd(status, flush);
    }
    PumpLater();
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    last_write_ = absl::Now();
    if (!ok) SetEnd(absl::CancelledError("the stream broke"), false);
    Advance();
  }

  void OnCancel() override {
    // The client's clock decides, and its cancellation may come first.
    const bool late = context_->deadline() <
                      std::chrono::system_clock::now() + kDeadlineSlack;
    late_ = late;
    cancelled_ = true;
    OnAbandoned();
    End(late ? absl::DeadlineExceededError("the call's deadline has passed")
             : absl::CancelledError("the client cancelled the call"));
  }

  void OnDone() override {
    const auto keep = std::move(self_);  // outlives the lock
    OnOver();
    absl::MutexLock lock(&mutex_);
    done_ = true;  // gRPC frees the context: nobody touches it from now on
  }

  void Tick(absl::Time now) override {
    absl::MutexLock lock(&mutex_);
    if (done_) return;
    OnTick(now);
    // A client that reads nothing does not even see the status.
    if (end_ && writing_ && now - end_time_ > kFlushTime) context_->TryCancel();
  }

 protected:
  // What to send next, if anything is ready.
  virtual std::optional<grpc::ByteBuffer> NextMessage()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // The client is gone: stop working for it.
  virtual void OnAbandoned() {}
  // The call is over, however it ended.
  virtual void OnOver() {}
  virtual void OnTick(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  // Headers go out now, at the latest.
  void SendHeaders() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_ || std::exchange(headers_sent_, true)) return;
    call_.Accept();
    this->StartSendInitialMetadata();
  }

  bool ended() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return end_.has_value();
  }
  // Since the last write; zero while one is under way.
  absl::Duration Silence(absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return writing_ ? absl::ZeroDuration() : now - last_write_;
  }
  void Write(grpc::ByteBuffer message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    SendHeaders();
    writing_ = true;
    outgoing_ = std::move(message);
    this->StartWrite(&outgoing_);
  }

  // Reads the client's next message, unless the call has ended: once Finish
  // was called, gRPC may free the stream at any moment. Only for reactors that
  // read.
  template <typename Message>
  void ReadNext(Message* message) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (!finished_) this->StartRead(message);
  }

  template <typename Derived>
  std::shared_ptr<Derived> Shared() {
    return std::static_pointer_cast<Derived>(this->shared_from_this());
  }
  template <typename Derived>
  std::weak_ptr<Derived> Weak() {
    return Shared<Derived>();
  }

  bool cancelled() const { return cancelled_; }
  // For metrics, where no event tells why a request ended.
  const char* abandon_reason() const {
    return late_ ? "deadline" : "cancelled";
  }
  const ServiceContext& shared() const { return shared_; }
  Call& call() { return call_; }
  absl::Mutex& mutex() ABSL_LOCK_RETURNED(mutex_) { return mutex_; }

  absl::Mutex mutex_;

 private:
  static constexpr absl::Duration kFlushTime = absl::Seconds(5);
  static constexpr std::chrono::milliseconds kDeadlineSlack{100};

  void SetEnd(const absl::Status& status, bool flush)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (end_) return;
    end_ = status;
    flush_ = flush;
    end_time_ = absl::Now();
  }

  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    if (!end_ || (flush_ && !cancelled_)) {
      if (auto message = NextMessage()) {
        Write(*std::move(message));
        return;
      }
    }
    if (!end_) return;
    finished_ = true;
    this->Finish(call_.Over(*end_));
  }

  grpc::CallbackServerContext* const context_;
  const ServiceContext& shared_;
  Call call_;
  std::shared_ptr<StreamCall> self_;
  std::atomic<bool> pump_posted_ = false;
  std::atomic<bool> cancelled_ = false;
  std::atomic<bool> late_ = false;  // cancelled by the deadline
  grpc::ByteBuffer outgoing_ ABSL_GUARDED_BY(mutex_);
  bool headers_sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  bool flush_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  absl::Time end_time_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_write_ ABSL_GUARDED_BY(mutex_);
};

// Makes a call that owns itself, for gRPC to keep.
template <typename T, typename... Arguments>
T* MakeCall(Arguments&&... arguments) {
  auto call = std::make_shared<T>(std::forward<Arguments>(arguments)...);
  call->Own();
  call->Start();
  return call.get();
}

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_STREAM_CALL_H_
