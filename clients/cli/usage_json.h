// Messages of the service as JSON for machines.
#ifndef MILLRACE_CLIENTS_CLI_USAGE_JSON_H_
#define MILLRACE_CLIENTS_CLI_USAGE_JSON_H_

#include <google/protobuf/duration.pb.h>

#include <nlohmann/json.hpp>

#include "millrace/v1/common.pb.h"

namespace millrace::cli {

double Seconds(const google::protobuf::Duration& duration);

// Token counts, under the names of message Usage.
nlohmann::json UsageJson(const v1::Usage& usage);

// queued_seconds, time_to_first_token_seconds, decode_seconds,
// tokens_per_second (0 if there was no decode).
nlohmann::json TimingJson(const v1::Usage& usage);

double DecodeTokensPerSecond(const v1::Usage& usage);

}  // namespace millrace::cli

#endif  // MILLRACE_CLIENTS_CLI_USAGE_JSON_H_
