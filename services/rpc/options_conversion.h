// Generation options: from messages to effective options, every default filled
// in and every range checked, and back.
//
// Errors are INVALID_FIELD; their field is `field`, the path of the message,
// and what is below it: "sampling.logit_bias[3].token_id".
#ifndef MILLRACE_SERVICES_RPC_OPTIONS_CONVERSION_H_
#define MILLRACE_SERVICES_RPC_OPTIONS_CONVERSION_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "millrace/v1/common.pb.h"
#include "services/engine/generation_options.h"
#include "services/rpc/request_limits.h"

namespace millrace::rpc {

// A message that leaves the seed open gets a random one.
absl::StatusOr<engine::SamplingOptions> FromProto(
    const v1::SamplingParams& params, const RequestLimits& limits,
    absl::string_view field);
absl::StatusOr<engine::StoppingOptions> FromProto(
    const v1::StoppingOptions& options, const RequestLimits& limits,
    absl::string_view field);
absl::StatusOr<engine::ResponseOptions> FromProto(
    const v1::ResponseOptions& options, const RequestLimits& limits,
    absl::string_view field);

// The three of any request that has them: fields `sampling`, `stopping` and
// `response`.
template <typename Request>
absl::StatusOr<engine::GenerationOptions> GenerationFrom(
    const Request& request, const RequestLimits& limits) {
  auto sampling = FromProto(request.sampling(), limits, "sampling");
  if (!sampling.ok()) return sampling.status();
  auto stopping = FromProto(request.stopping(), limits, "stopping");
  if (!stopping.ok()) return stopping.status();
  auto response = FromProto(request.response(), limits, "response");
  if (!response.ok()) return response.status();
  return engine::GenerationOptions{*std::move(sampling), *std::move(stopping),
                                   *response};
}

// `policy` is a canonical text form.
v1::EffectiveOptions ToProto(const engine::GenerationOptions& options,
                             absl::string_view policy,
                             const std::string& model);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_OPTIONS_CONVERSION_H_
