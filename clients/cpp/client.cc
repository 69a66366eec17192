#include "clients/cpp/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>
#include <thread>
#include <utility>

#include "clients/cpp/generate_call.h"
#include "clients/cpp/session_impl.h"
#include "clients/cpp/status.h"
#include "millrace/v1/admin.grpc.pb.h"
#include "millrace/v1/control.grpc.pb.h"
#include "millrace/v1/inference.grpc.pb.h"

namespace millrace::client {
namespace {

// Pings find a dead server where no answer is awaited.
constexpr int kKeepaliveTimeMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;

std::shared_ptr<grpc::Channel> MakeChannel(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  std::shared_ptr<grpc::ChannelCredentials> credentials =
      grpc::InsecureChannelCredentials();
  if (!options.root_certificates.empty()) {
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = options.root_certificates;
    credentials = grpc::SslCredentials(ssl);
  }
  return grpc::CreateCustomChannel(options.address, credentials, arguments);
}

class ClientImpl final : public Client {
 public:
  explicit ClientImpl(const ClientOptions& options)
      : options_(options),
        channel_(MakeChannel(options)),
        inference_(v1::InferenceService::NewStub(channel_)),
        control_(v1::ControlService::NewStub(channel_)),
        admin_(v1::AdminService::NewStub(channel_)),
        sessions_(v1::SessionService::NewStub(channel_)) {}

  absl::StatusOr<v1::GenerateFinished> Generate(
      const v1::GenerateRequest& request,
      const std::function<bool(const v1::GenerateResponse&)>& on_event)
      override {
    const auto context = NewContext();
    const auto stream = inference_->Generate(context.get(), request);
    auto finished =
        ReadEvents<v1::GenerateFinished>(*context, *stream, on_event);
    return End(*stream, std::move(finished));
  }

  void StartGenerate(const v1::GenerateRequest& request,
                     std::function<bool(const v1::GenerateResponse&)> on_event,
                     std::function<void(absl::StatusOr<v1::GenerateFinished>)>
                         on_end) override {
    GenerateCall::Start(*inference_, NewContext(), request, std::move(on_event),
                        std::move(on_end));
  }

  absl::StatusOr<v1::ScoreFinished> Score(
      const v1::ScoreSetup& setup,
      const std::function<std::optional<v1::Input>()>& next_piece,
      const std::function<bool(const v1::ScoreResponse&)>& on_event) override;

  absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request) override {
    return Call(*inference_, &v1::InferenceService::Stub::Tokenize, request);
  }
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(
      const v1::DetokenizeRequest& request) override {
    return Call(*inference_, &v1::InferenceService::Stub::Detokenize, request);
  }
  absl::StatusOr<v1::GetServerInfoResponse> GetServerInfo() override {
    return Call(*control_, &v1::ControlService::Stub::GetServerInfo,
                v1::GetServerInfoRequest());
  }
  absl::StatusOr<v1::GetModelInfoResponse> GetModelInfo() override {
    return Call(*control_, &v1::ControlService::Stub::GetModelInfo,
                v1::GetModelInfoRequest());
  }
  absl::StatusOr<v1::GetLoadResponse> GetLoad() override {
    return Call(*control_, &v1::ControlService::Stub::GetLoad,
                v1::GetLoadRequest());
  }
  absl::StatusOr<v1::ListSessionsResponse> ListSessions(
      const v1::ListSessionsRequest& request) override {
    return Call(*admin_, &v1::AdminService::Stub::ListSessions, request);
  }
  absl::Status DeleteSession(const std::string& session_id) override {
    v1::DeleteSessionRequest request;
    request.set_session_id(session_id);
    return Call(*admin_, &v1::AdminService::Stub::DeleteSession, request)
        .status();
  }

  absl::StatusOr<std::unique_ptr<Session>> OpenSession(
      const v1::OpenSession& open) override {
    return OpenSessionOn(
        sessions_, [this] { return NewContext(); }, open);
  }

 private:
  std::unique_ptr<grpc::ClientContext> NewContext() const {
    auto context = std::make_unique<grpc::ClientContext>();
    if (!options_.bearer_token.empty()) {
      context->AddMetadata("authorization", "Bearer " + options_.bearer_token);
    }
    return context;
  }

  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) const {
    const auto context = NewContext();
    context->set_deadline(std::chrono::system_clock::now() +
                          absl::ToChronoNanoseconds(options_.deadline));
    Response response;
    const absl::Status status =
        ToStatus((stub.*method)(context.get(), request, &response));
    if (!status.ok()) return status;
    return response;
  }

  // Reads until nothing comes any more; keeps the event `finished`.
  template <typename Finished, typename Event, typename Stream>
  static Finished ReadEvents(
      grpc::ClientContext& context, Stream& stream,
      const std::function<bool(const Event&)>& on_event) {
    Event event;
    Finished finished;
    while (stream.Read(&event)) {
      if (event.has_finished()) finished = event.finished();
      if (!on_event(event)) context.TryCancel();
    }
    return finished;
  }

  template <typename Finished, typename Stream>
  static absl::StatusOr<Finished> End(Stream& stream, Finished finished) {
    return EndOf(ToStatus(stream.Finish()), std::move(finished));
  }

  const ClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::InferenceService::Stub> inference_;
  const std::unique_ptr<v1::ControlService::Stub> control_;
  const std::unique_ptr<v1::AdminService::Stub> admin_;
  const std::shared_ptr<v1::SessionService::Stub> sessions_;
};

absl::StatusOr<v1::ScoreFinished> ClientImpl::Score(
    const v1::ScoreSetup& setup,
    const std::function<std::optional<v1::Input>()>& next_piece,
    const std::function<bool(const v1::ScoreResponse&)>& on_event) {
  const auto context = NewContext();
  const auto stream = inference_->Score(context.get());
  // Writing waits while the server computes, so that reading needs a thread of
  // its own.
  std::thread writer([&] {
    v1::ScoreRequest request;
    *request.mutable_setup() = setup;
    bool more = stream->Write(request);
    while (more) {
      std::optional<v1::Input> piece = next_piece();
      if (!piece.has_value()) break;
      *request.mutable_input() = *std::move(piece);
      more = stream->Write(request);
    }
    stream->WritesDone();
  });
  auto finished = ReadEvents<v1::ScoreFinished>(*context, *stream, on_event);
  writer.join();
  return End(*stream, std::move(finished));
}

}  // namespace

std::unique_ptr<Client> Client::Create(const ClientOptions& options) {
  return std::make_unique<ClientImpl>(options);
}

}  // namespace millrace::client
