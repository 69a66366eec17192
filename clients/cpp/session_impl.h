// The session of clients/cpp over gRPC.
#ifndef MILLRACE_CLIENTS_CPP_SESSION_IMPL_H_
#define MILLRACE_CLIENTS_CPP_SESSION_IMPL_H_

#include <grpcpp/client_context.h>

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "clients/cpp/session.h"
#include "millrace/v1/session.grpc.pb.h"

namespace millrace::client {

// Makes the context of a new stream, with credentials.
using ContextFactory = std::function<std::unique_ptr<grpc::ClientContext>()>;

absl::StatusOr<std::unique_ptr<Session>> OpenSessionOn(
    std::shared_ptr<v1::SessionService::Stub> stub, ContextFactory context,
    const v1::OpenSession& open);

}  // namespace millrace::client

#endif  // MILLRACE_CLIENTS_CPP_SESSION_IMPL_H_
