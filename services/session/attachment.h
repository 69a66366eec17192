// Attachment says which stream a session is attached to, and ends streams.
//
// Thread-safe. A stream's owner is called under a lock, so that nobody is
// called after Detach has returned: owners may not call back.
#ifndef MILLRACE_SERVICES_SESSION_ATTACHMENT_H_
#define MILLRACE_SERVICES_SESSION_ATTACHMENT_H_

#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/session/session_store.h"

namespace millrace::session {

class Attachment {
 public:
  Attachment(StreamId stream, StreamOwner* owner)
      : stream_(stream), owner_(owner) {}

  // Attaches the stream; the one before, if any, ends with SESSION_FENCED.
  void Attach(StreamId stream, StreamOwner* owner);
  // The stream is gone. False if it was not attached.
  bool Detach(StreamId stream, absl::Time now);
  // Ends the stream that is attached, if any; then none is.
  void End(const absl::Status& status, absl::Time now);

  bool Holds(StreamId stream) const;
  // Since when no stream is attached.
  std::optional<absl::Time> detached_since() const;

 private:
  mutable absl::Mutex mutex_;
  StreamId stream_ ABSL_GUARDED_BY(mutex_);
  StreamOwner* owner_ ABSL_GUARDED_BY(mutex_);  // null: detached
  absl::Time since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_ATTACHMENT_H_
