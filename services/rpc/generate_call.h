// One InferenceService.Generate.
#ifndef MILLRACE_SERVICES_RPC_GENERATE_CALL_H_
#define MILLRACE_SERVICES_RPC_GENERATE_CALL_H_

#include <grpcpp/grpcpp.h>

#include "services/rpc/serving.h"

namespace millrace::rpc {

grpc::ServerWriteReactor<grpc::ByteBuffer>* NewGenerateCall(
    grpc::CallbackServerContext* context, const ServiceContext& shared,
    const grpc::ByteBuffer& request);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_GENERATE_CALL_H_
