// SessionEntry joins what makes up an open session: the state machine, its
// inbox, its event log and the stream that it is attached to.
//
// Submit, Detach and info may be called from any thread; the rest on the engine
// thread, while the entry is owned by a std::shared_ptr.
#ifndef MILLRACE_SERVICES_SESSION_SESSION_ENTRY_H_
#define MILLRACE_SERVICES_SESSION_SESSION_ENTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/session/attachment.h"
#include "services/session/inbox.h"
#include "services/session/open_session.h"
#include "services/session/session.h"
#include "services/session/session_store.h"

namespace millrace::session {

class SessionEntry final : public SessionHandle,
                           public std::enable_shared_from_this<SessionEntry> {
 public:
  // `deps` are borrowed. `on_closed` is called in the midst of the session's
  // end, `on_slow_consumer` when a stream was ended for that.
  SessionEntry(const OpenOptions& open, PreparedSession prepared,
               const StoreOptions& options, const StoreDependencies& deps,
               StreamId stream, StreamOwner* owner,
               std::function<void()> on_closed,
               std::function<void()> on_slow_consumer);

  const std::string& id() const override { return id_; }
  EventLog& log() override { return log_; }
  void Submit(StreamId stream, ClientMessage message) override;
  void Detach(StreamId stream) override;
  SessionInfo info() const;
  uint64_t times_paused() const { return session_->snapshot().times_paused; }

  // RESOURCE_EXHAUSTED if there is no memory for it.
  absl::Status Start();
  // In the same time, right or wrong.
  bool HasToken(absl::string_view resume_token) const;
  // False, as long as HasToken takes.
  static bool IsNobodysToken(absl::string_view resume_token);
  void Attach(StreamId stream, StreamOwner* owner,
              uint64_t last_sequence_number);
  // Closes or detaches what waited too long; true if the session has expired.
  bool Tick(absl::Time now, absl::Duration slow_reader_timeout);
  Session& session() { return *session_; }
  // The engine has stopped: gives back what the session holds of it.
  void Abandon() { session_.reset(); }

 private:
  Session::Context SessionContext();
  void RunInbox();
  void OnSessionClosed(CloseReason reason);
  void EndSlowStream();

  const std::string id_;
  const std::string resume_token_;
  const std::string client_tag_;
  const std::string policy_name_;
  const EffectiveOptions options_;
  const std::shared_ptr<const cache::CachePolicy> policy_;
  const StoreDependencies& deps_;
  const std::function<void()> on_closed_;
  const std::function<void()> on_slow_consumer_;
  const absl::Time created_;
  EventLog log_;
  InputCredit credit_;
  Attachment attachment_;
  int64_t reserved_bytes_ = 0;  // set before others know the entry
  std::unique_ptr<Session> session_;

  absl::Mutex inbox_mutex_;
  Inbox inbox_ ABSL_GUARDED_BY(inbox_mutex_);
  std::vector<Command> commands_ ABSL_GUARDED_BY(inbox_mutex_);
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_SESSION_ENTRY_H_
