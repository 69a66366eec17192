// Cache policies between messages and the registry's form, without knowing any
// of them: the arm of CachePolicy is the policy's name, the fields of its
// message are the options' names (cache/policies/registry.h). A new policy
// needs a message and an arm, and no change here.
//
//   {sinks {window_tokens: 60}}  <->  "sinks" {{"window_tokens", "60"}}
//
// Values of enums are their names without the prefix, in lower case:
// ON_FULL_STOP is "stop".
#ifndef MILLRACE_SERVICES_RPC_POLICY_CONVERSION_H_
#define MILLRACE_SERVICES_RPC_POLICY_CONVERSION_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cache/policies/registry.h"
#include "millrace/v1/cache_policy.pb.h"

namespace millrace::rpc {

// INVALID_FIELD, naming `field` and what is below it, if no policy is set, or
// if the message has a policy or an option that this server does not know.
absl::StatusOr<cache::PolicyConfig> FromProto(const v1::CachePolicy& policy,
                                              absl::string_view field);

// INVALID_ARGUMENT if the message has no such arm or field, or if a value is
// none of its type.
absl::StatusOr<v1::CachePolicy> ToProto(const cache::PolicyConfig& config);

// Of a canonical text form, which always converts.
v1::CachePolicy PolicyFromText(absl::string_view text);

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_POLICY_CONVERSION_H_
