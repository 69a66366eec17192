// A unary call in one expression: credentials, gate, work, status, metrics.
#ifndef MILLRACE_SERVICES_RPC_UNARY_CALL_H_
#define MILLRACE_SERVICES_RPC_UNARY_CALL_H_

#include <string>
#include <utility>

#include "services/rpc/call.h"

namespace millrace::rpc {

// Calls `work`, a function of const Serving& that fills the response and
// returns a Status, and ends the call with that.
template <typename Work>
grpc::ServerUnaryReactor* AnswerUnary(grpc::CallbackServerContext* context,
                                      const ServiceContext& shared,
                                      std::string method, Work work) {
  Call call(context, shared, std::move(method));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto serving = call.Admit();
  const absl::Status status = serving.ok() ? work(**serving) : serving.status();
  if (status.ok()) call.Accept();
  reactor->Finish(call.Over(status));
  return reactor;
}

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_UNARY_CALL_H_
