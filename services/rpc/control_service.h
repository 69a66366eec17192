// ControlService: what the server is, what its model is, how busy it is.
#ifndef MILLRACE_SERVICES_RPC_CONTROL_SERVICE_H_
#define MILLRACE_SERVICES_RPC_CONTROL_SERVICE_H_

#include <memory>

#include "services/rpc/serving.h"

namespace grpc {
class Service;
}

namespace millrace::rpc {

// `shared` is borrowed and outlives the service.
std::unique_ptr<grpc::Service> NewControlService(const ServiceContext& shared);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_CONTROL_SERVICE_H_
