#include <utility>

#include "grpc/health/v1/health.grpc.pb.h"
#include "services/rpc/health.h"

namespace millrace::rpc {
namespace {

namespace proto = ::grpc::health::v1;
using grpc::CallbackServerContext;

proto::HealthCheckResponse ToProto(std::optional<bool> serving) {
  proto::HealthCheckResponse out;
  out.set_status(!serving   ? proto::HealthCheckResponse::SERVICE_UNKNOWN
                 : *serving ? proto::HealthCheckResponse::SERVING
                            : proto::HealthCheckResponse::NOT_SERVING);
  return out;
}

// One Watch: sends the state now and at each change, until it is cancelled.
class WatchCall final
    : public grpc::ServerWriteReactor<proto::HealthCheckResponse>,
      public std::enable_shared_from_this<WatchCall> {
 public:
  WatchCall(HealthStates* states, IoThread* io, std::string name)
      : states_(states), io_(io), name_(std::move(name)) {}

  void Start() {
    self_ = shared_from_this();
    states_->Watch([weak = weak_from_this(), io = io_] {
      auto self = weak.lock();
      if (self) io->Post([self] { self->Send(); });
      return self != nullptr;
    });
    Send();
  }

  void OnWriteDone(bool) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
    }
    Send();
  }

  void OnCancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    FinishIfIdle();
  }

  void OnDone() override { const auto self = std::move(self_); }

 private:
  void Send() {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return FinishIfIdle();
    if (writing_) return;
    proto::HealthCheckResponse now = ToProto(states_->Get(name_));
    if (sent_ && now.status() == response_.status()) return;
    sent_ = writing_ = true;
    response_ = now;
    StartWrite(&response_);
  }

  void FinishIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || std::exchange(finished_, true)) return;
    Finish(grpc::Status::CANCELLED);
  }

  HealthStates* const states_;
  IoThread* const io_;
  const std::string name_;
  std::shared_ptr<WatchCall> self_;  // until gRPC is done
  absl::Mutex mutex_;
  proto::HealthCheckResponse response_ ABSL_GUARDED_BY(mutex_);
  bool sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

class HealthService final : public proto::Health::CallbackService {
 public:
  HealthService(HealthStates* states, IoThread* io)
      : states_(states), io_(io) {}

  grpc::ServerUnaryReactor* Check(
      CallbackServerContext* context, const proto::HealthCheckRequest* request,
      proto::HealthCheckResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto serving = states_->Get(request->service());
    *response = ToProto(serving);
    reactor->Finish(serving ? grpc::Status::OK
                            : grpc::Status(grpc::StatusCode::NOT_FOUND,
                                           "no service of that name"));
    return reactor;
  }

  grpc::ServerWriteReactor<proto::HealthCheckResponse>* Watch(
      CallbackServerContext*,
      const proto::HealthCheckRequest* request) override {
    auto call = std::make_shared<WatchCall>(states_, io_, request->service());
    call->Start();
    return call.get();
  }

 private:
  HealthStates* const states_;
  IoThread* const io_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewHealthService(HealthStates* states,
                                                IoThread* io) {
  return std::make_unique<HealthService>(states, io);
}

}  // namespace millrace::rpc
