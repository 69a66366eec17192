// One InferenceService.Score.
#ifndef MILLRACE_SERVICES_RPC_SCORE_CALL_H_
#define MILLRACE_SERVICES_RPC_SCORE_CALL_H_

#include <grpcpp/grpcpp.h>

#include "services/rpc/serving.h"

namespace millrace::rpc {

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* NewScoreCall(
    grpc::CallbackServerContext* context, const ServiceContext& shared);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_SCORE_CALL_H_
