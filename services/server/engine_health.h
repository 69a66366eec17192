// Whether the engine can still be expected to compute.
#ifndef MILLRACE_SERVICES_SERVER_ENGINE_HEALTH_H_
#define MILLRACE_SERVICES_SERVER_ENGINE_HEALTH_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/engine/engine.h"

namespace millrace::server {

// UNAVAILABLE, and why, if its last step failed: a device that has failed, as a
// rule, fails for good. Also if it has work and has made no progress for 60 s,
// or for 20 times its longest step so far if that is more.
absl::Status EngineHealth(const engine::EngineStats& stats,
                          absl::Duration longest_step);

}  // namespace millrace::server

#endif  // MILLRACE_SERVICES_SERVER_ENGINE_HEALTH_H_
