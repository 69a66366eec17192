// AdminService: sessions for operators, on a listener of its own.
#ifndef MILLRACE_SERVICES_RPC_ADMIN_SERVICE_H_
#define MILLRACE_SERVICES_RPC_ADMIN_SERVICE_H_

#include <memory>

#include "services/rpc/serving.h"

namespace grpc {
class Service;
}

namespace millrace::rpc {

// `shared` is borrowed and outlives the service.
std::unique_ptr<grpc::Service> NewAdminService(const ServiceContext& shared);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_ADMIN_SERVICE_H_
