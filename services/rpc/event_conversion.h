// What sessions and requests tell their clients, as messages.
#ifndef MILLRACE_SERVICES_RPC_EVENT_CONVERSION_H_
#define MILLRACE_SERVICES_RPC_EVENT_CONVERSION_H_

#include <string>
#include <vector>

#include "millrace/v1/common.pb.h"
#include "millrace/v1/model_info.pb.h"
#include "millrace/v1/session.pb.h"
#include "services/session/event.h"

namespace millrace::rpc {

// What `opened` tells beyond the event.
struct ServerFacts {
  v1::ModelInfo model;
  std::vector<std::string> features;
};

v1::ConnectResponse ToProto(const session::Event& event,
                            const ServerFacts& facts);

// An answer outside the order: sequence_number 0.
v1::ConnectResponse HeartbeatEvent();

v1::TokenOutput ToProto(const session::Output& output);
v1::CacheUpdate ToProto(const session::CacheUpdated& update);
v1::Usage ToProto(const session::Usage& usage);
v1::StopMatch ToProto(const engine::StopMatch& match);
v1::FinishReason ToProto(engine::FinishReason reason);
v1::SessionState ToProto(session::State state);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_EVENT_CONVERSION_H_
