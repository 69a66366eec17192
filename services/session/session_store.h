// SessionStore holds the open sessions: opens them, finds them again after a
// lost connection, lists and deletes them, and closes those that waited too
// long.
//
//   store.Open(options, &stream, [](absl::StatusOr<SessionHandle> opened) {});
//   handle->Submit(message);          // any thread, in the client's order
//   handle->log().Take();             // the writer
//   handle->Detach(stream_id);        // the stream is gone; the session waits
//
// Sessions run on the engine thread; everything here may be called from any
// thread. Handles are shared: a session lives as long as somebody holds one,
// but ends (State::kClosed) on its own terms.
#ifndef MILLRACE_SERVICES_SESSION_SESSION_STORE_H_
#define MILLRACE_SERVICES_SESSION_SESSION_STORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cache/kv_spec.h"
#include "cache/policies/registry.h"
#include "services/engine/engine.h"
#include "services/session/client_message.h"
#include "services/session/event.h"
#include "services/session/event_log.h"
#include "services/text/chat_format.h"
#include "services/text/tokenizer.h"

namespace millrace::session {

// Names the stream that a session is attached to; never reused.
using StreamId = uint64_t;

class SessionHandle {
 public:
  virtual ~SessionHandle() = default;

  virtual const std::string& id() const = 0;
  virtual EventLog& log() = 0;

  // Takes a message of the client. Messages of one stream come in order. The
  // answer is an event. Messages of a stream that no longer holds the session
  // are dropped. Tokenises on the calling thread.
  virtual void Submit(StreamId stream, ClientMessage message) = 0;

  // The stream broke or was cancelled: the session waits for its
  // detach_timeout. Ignored if another stream has taken over.
  virtual void Detach(StreamId stream) = 0;
};

// How the store tells a stream that it has lost its session.
class StreamOwner {
 public:
  virtual ~StreamOwner() = default;
  // The session ended after its last event (OK), or this stream must end with
  // the status: SESSION_FENCED, SLOW_CONSUMER, DRAINING. Any thread; may not
  // call the session or the store.
  virtual void OnEnd(const absl::Status& status) = 0;
};

struct SessionInfo {
  std::string id = {};
  State state = State::kIdle;
  std::string client_tag = {};
  std::string policy = {};
  absl::Time created = {}, last_active = {};
  Usage usage = {};
  uint64_t reserved_bytes = 0;
  uint64_t pending_input_bytes = 0, unread_bytes = 0;
};

struct StoreOptions {
  int max_sessions = 0;  // 0: what K/V memory holds
  int64_t max_pending_input_bytes = 1 << 20;
  int64_t session_kv_bytes = 512 << 20;  // per-session cap
  absl::Duration default_idle_timeout = absl::Minutes(30);
  absl::Duration default_detach_timeout = absl::Seconds(60);
  absl::Duration slow_reader_timeout = absl::Minutes(10);
  cache::KvDtype kv_dtype = cache::KvDtype::kF16;
  std::string default_policy = "sinks";
  cache::PolicyBackend backend = {};
  EventLog::Limits log = {};
};

// What a store is made of; borrowed, outlives it.
struct StoreDependencies {
  engine::Engine* engine = nullptr;
  const text::Tokenizer* tokenizer = nullptr;
  const text::ChatFormat* chat_format = nullptr;  // null: no usable template
  absl::Status chat_status;                       // then: why not
  std::function<absl::Time()> now = absl::Now;
  // Told every event of every session when it is appended to its log, with the
  // session's id and the name of its policy ("sinks"), on the engine thread.
  // For metrics; may be null.
  std::function<void(const std::string& session_id, absl::string_view policy,
                     const EventBody& event)>
      on_event;
};

// Since the start; for metrics.
struct StoreStats {
  uint64_t paused = 0;          // times that a session entered kPaused
  uint64_t resumed = 0;         // times that a stream took a session up again
  uint64_t expired = 0;         // sessions closed because they waited too long
  uint64_t slow_consumers = 0;  // streams ended with SLOW_CONSUMER
};

class SessionStore {
 public:
  using OpenCallback =
      std::function<void(absl::StatusOr<std::shared_ptr<SessionHandle>>)>;

  static std::unique_ptr<SessionStore> Create(const StoreOptions& options,
                                              const StoreDependencies& deps);
  // REQUIRES: the engine is stopped.
  virtual ~SessionStore() = default;

  // Opens a session, or says why not: INVALID_ARGUMENT for options that do not
  // fit the model, RESOURCE_EXHAUSTED (KV_BUDGET, SESSION_LIMIT), UNAVAILABLE
  // (DRAINING). The first event is `Opened`. Calls back once, on the engine
  // thread. `owner` is borrowed until OnEnd or Detach.
  virtual void Open(OpenOptions options, StreamId stream, StreamOwner* owner,
                    OpenCallback done) = 0;

  // Attaches a stream to a session whose stream was lost, or takes it over.
  // NOT_FOUND (SESSION_NOT_FOUND) for an unknown id and for a wrong token,
  // alike in bytes and time. Events after `last_sequence_number` come again,
  // then `Resumed`; with a gap `Resumed` is the first.
  virtual void Resume(std::string session_id, std::string resume_token,
                      uint64_t last_sequence_number, StreamId stream,
                      StreamOwner* owner, OpenCallback done) = 0;

  // Ends a session with CloseReason::kDeleted. NOT_FOUND.
  virtual absl::Status Delete(absl::string_view session_id) = 0;
  virtual absl::StatusOr<SessionInfo> Get(
      absl::string_view session_id) const = 0;
  // Ascending by id, after `after`, at most `limit`.
  virtual std::vector<SessionInfo> List(absl::string_view after,
                                        int limit) const = 0;

  // Closes what waited too long. Called about ten times a second by the
  // server; tests call it with a fake clock.
  virtual void Tick() = 0;

  // No new sessions and turns; every session gets GoAway.
  virtual void StartDrain(absl::Time deadline) = 0;
  // Ends what is left with CloseReason::kDrained.
  virtual void FinishDrain() = 0;
  virtual int num_sessions() const = 0;
  virtual StoreStats stats() const = 0;

  static StreamId NewStreamId();
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_SESSION_STORE_H_
