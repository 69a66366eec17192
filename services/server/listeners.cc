#include "services/server/listeners.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/resource_quota.h>

#include <chrono>
#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "millrace/v1/admin.pb.h"
#include "millrace/v1/control.pb.h"
#include "millrace/v1/inference.pb.h"
#include "millrace/v1/session.pb.h"
#include "services/rpc/admin_service.h"
#include "services/rpc/control_service.h"
#include "services/rpc/inference_service.h"
#include "services/rpc/session_service.h"

namespace millrace::server {
namespace {

using google::protobuf::FileDescriptor;
using google::protobuf::ServiceDescriptor;

std::vector<const ServiceDescriptor*> Services() {
  return {
      v1::GenerateRequest::descriptor()->file()->service(0),
      v1::ConnectRequest::descriptor()->file()->service(0),
      v1::GetLoadRequest::descriptor()->file()->service(0),
      v1::GetSessionRequest::descriptor()->file()->service(0),
  };
}

// Reflection registers itself with every server; it belongs on the data
// listener alone.
class WithoutPlugins : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*
                         plugins) override {
    plugins->clear();
  }
};

int Milliseconds(absl::Duration duration) {
  const int64_t ms = absl::ToInt64Milliseconds(duration);
  return static_cast<int>(
      std::min<int64_t>(ms, std::numeric_limits<int>::max()));
}

absl::StatusOr<std::string> ReadPem(const char* flag, const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (file && text.str().find("-----BEGIN ") != std::string::npos) {
    return text.str();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", path, ": is no readable PEM file"));
}

using Credentials = std::shared_ptr<grpc::ServerCredentials>;

absl::StatusOr<Credentials> DataCredentials(const ServerOptions& options) {
  if (options.tls_cert.empty()) return grpc::InsecureServerCredentials();
  const auto certificate = ReadPem("tls_cert", options.tls_cert);
  if (!certificate.ok()) return certificate.status();
  const auto key = ReadPem("tls_key", options.tls_key);
  if (!key.ok()) return key.status();
  grpc::SslServerCredentialsOptions ssl;
  ssl.pem_key_cert_pairs.push_back({*key, *certificate});
  return grpc::SslServerCredentials(ssl);
}

void SetTransport(const GrpcOptions& o, int max_streams, const char* quota_name,
                  grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(
      static_cast<int>(o.max_receive_message_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE,
                             static_cast<int>(o.max_metadata_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, max_streams);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             Milliseconds(o.keepalive_time));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             Milliseconds(o.keepalive_timeout));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS,
                             o.keepalive_permit_without_calls);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      Milliseconds(o.min_recv_ping_interval_without_data));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES,
                             o.max_ping_strikes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS,
                             Milliseconds(o.max_connection_idle));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                             Milliseconds(o.max_connection_age));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                             Milliseconds(o.max_connection_age_grace));
  // Two servers on one port would share its connections unnoticed.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetResourceQuota(
      grpc::ResourceQuota(quota_name).Resize(o.memory_quota_bytes));
  // Reflection is the only service that is not served by callbacks.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
}

// One port and its services.
struct Listener {
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::unique_ptr<grpc::Server> server;
  int port = 0;

  absl::Status Start(const char* flag, const std::string& address,
                     Credentials credentials, int max_streams,
                     const GrpcOptions& options, bool reflection) {
    grpc::ServerBuilder builder;
    SetTransport(options, max_streams, flag, builder);
    if (!reflection) builder.SetOption(std::make_unique<WithoutPlugins>());
    builder.AddListeningPort(address, std::move(credentials), &port);
    for (auto& service : services) builder.RegisterService(service.get());
    server = builder.BuildAndStart();
    const bool is_unix = address.rfind("unix:", 0) == 0;
    if (server != nullptr && (port > 0 || is_unix)) {
      if (is_unix) port = 0;
      return absl::OkStatus();
    }
    return absl::UnavailableError(
        absl::StrCat("--", flag, "=", address,
                     ": cannot listen there; is the port in use, or the "
                     "address not this machine's, or the key not the "
                     "certificate's?"));
  }
};

}  // namespace

std::vector<std::string> HealthNames() {
  std::vector<std::string> names = {"", "liveness", "readiness"};
  for (const ServiceDescriptor* service : Services()) {
    names.push_back(service->full_name());
  }
  return names;
}

std::vector<std::string> MethodNames() {
  std::vector<std::string> names;
  for (const ServiceDescriptor* service : Services()) {
    for (int i = 0; i < service->method_count(); ++i) {
      names.push_back(
          absl::StrCat(service->full_name(), "/", service->method(i)->name()));
    }
  }
  return names;
}

std::string GrpcVersion() { return grpc::Version(); }

struct Listeners::Impl {
  Listener data, health, admin;
};

Listeners::Listeners(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Listeners::~Listeners() { Shutdown(absl::ZeroDuration()); }

// The libraries' own lines are no JSON, and name peers and files; what matters
// of them comes back as a status.
static void SilenceLibraries() {
  gpr_set_log_function([](gpr_log_func_args*) {});
  google::protobuf::SetLogHandler(nullptr);
}

absl::StatusOr<std::unique_ptr<Listeners>> Listeners::Start(
    const ServerOptions& options, const rpc::ServiceContext& context,
    rpc::HealthStates* health) {
  SilenceLibraries();
  auto credentials = DataCredentials(options);
  if (!credentials.ok()) return credentials.status();
  constexpr int kSmall = 100;  // streams where only operators call
  const int streams = options.grpc.max_concurrent_streams > 0
                          ? options.grpc.max_concurrent_streams
                      : options.max_sessions > 0
                          ? options.max_sessions + kSmall
                          : std::numeric_limits<int>::max();
  auto impl = std::make_unique<Impl>();
  impl->data.services.push_back(rpc::NewInferenceService(context));
  impl->data.services.push_back(rpc::NewSessionService(context));
  impl->data.services.push_back(rpc::NewControlService(context));
  impl->data.services.push_back(rpc::NewHealthService(health, context.io));
  impl->health.services.push_back(rpc::NewHealthService(health, context.io));
  impl->admin.services.push_back(rpc::NewAdminService(context));
  const bool reflection = options.auth_token_file.empty();
  absl::Status status =
      impl->data.Start("listen", options.listen, *std::move(credentials),
                       streams, options.grpc, reflection);
  if (status.ok()) {
    status = impl->health.Start("health_listen", options.health_listen,
                                grpc::InsecureServerCredentials(), kSmall,
                                options.grpc, false);
  }
  if (status.ok()) {
    status = impl->admin.Start("admin_listen", options.admin_listen,
                               grpc::InsecureServerCredentials(), kSmall,
                               options.grpc, false);
  }
  if (!status.ok()) return status;
  return std::unique_ptr<Listeners>(new Listeners(std::move(impl)));
}

int Listeners::data_port() const { return impl_->data.port; }
int Listeners::health_port() const { return impl_->health.port; }
int Listeners::admin_port() const { return impl_->admin.port; }

void Listeners::Shutdown(absl::Duration patience) {
  const auto deadline =
      std::chrono::system_clock::now() + absl::ToChronoMilliseconds(patience);
  for (Listener* listener : {&impl_->data, &impl_->admin, &impl_->health}) {
    if (listener->server) listener->server->Shutdown(deadline);
    listener->server.reset();
  }
}

}  // namespace millrace::server
