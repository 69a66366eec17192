// What handlers need once the model is loaded, and the gate that says whether
// it is.
#ifndef MILLRACE_SERVICES_RPC_SERVING_H_
#define MILLRACE_SERVICES_RPC_SERVING_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cache/policies/registry.h"
#include "millrace/v1/control.pb.h"
#include "services/auth/bearer_token.h"
#include "services/metrics/event_recorder.h"
#include "services/metrics/json_log.h"
#include "services/metrics/metrics.h"
#include "services/oneshot/generation.h"
#include "services/oneshot/prompt.h"
#include "services/oneshot/request_policy.h"
#include "services/rpc/event_conversion.h"
#include "services/rpc/io_thread.h"
#include "services/rpc/request_limits.h"
#include "services/session/session_store.h"

namespace millrace::rpc {

// Exists while the model is loaded; everything is borrowed.
struct Serving {
  session::SessionStore* store = nullptr;
  oneshot::Dependencies oneshot;
  oneshot::TextTools text;
  cache::PolicyContext policy_context;  // of a request that pins nothing
  RequestLimits limits;
  ServerFacts facts;
  v1::GetServerInfoResponse server_info;
  std::function<v1::GetLoadResponse()> load;  // any thread
  // Whether the process has so little memory left that no session is opened,
  // whatever K/V memory says. Any thread; null: never.
  std::function<bool()> memory_is_short;
};

// Opens when the model is loaded. Thread-safe.
class ServingGate {
 public:
  // `serving` outlives all calls.
  void Open(const Serving* serving) { serving_ = serving; }

  // UNAVAILABLE (MODEL_LOADING) while it is closed.
  absl::StatusOr<const Serving*> Get() const;

 private:
  std::atomic<const Serving*> serving_ = nullptr;
};

// What all services share, from before the model is loaded; borrowed.
struct ServiceContext {
  ServingGate* gate = nullptr;
  IoThread* io = nullptr;
  metrics::Metrics* metrics = nullptr;
  metrics::EventRecorder* recorder = nullptr;
  metrics::JsonLog* log = nullptr;
  const auth::BearerToken* token = nullptr;  // null: nobody is asked
  int max_request_id_bytes = 128;
  absl::Duration heartbeat_interval = absl::Seconds(15);
  absl::Duration open_timeout = absl::Seconds(10);
};

}  // namespace millrace::rpc

#endif  // MILLRACE_SERVICES_RPC_SERVING_H_
