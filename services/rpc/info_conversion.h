// What a server and its model are, as messages. Made once, when the model is
// loaded.
#ifndef MILLRACE_SERVICES_RPC_INFO_CONVERSION_H_
#define MILLRACE_SERVICES_RPC_INFO_CONVERSION_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "backends/model_file/model_file.h"
#include "cache/kv_spec.h"
#include "millrace/v1/control.pb.h"
#include "millrace/v1/model_info.pb.h"
#include "services/rpc/request_limits.h"
#include "services/text/tokenizer.h"

namespace millrace::rpc {

// `name` is how requests call the model; `chat_status` tells whether its
// template can be used. `kv` is the shape of its cache.
v1::ModelInfo ToModelInfo(const std::string& name,
                          const backends::ModelFile& file,
                          const text::Tokenizer& tokenizer,
                          const absl::Status& chat_status,
                          const cache::KvSpec& kv);

// The limits that requests are held to; the server adds its own.
v1::Limits ToLimits(const RequestLimits& limits);

// All policies of this server, by the registry, with the defaults for its
// model.
std::vector<v1::PolicyInfo> ToPolicyInfos(bool has_sink_token);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_INFO_CONVERSION_H_
