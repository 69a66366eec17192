// EventLog numbers a session's events and keeps them for whoever reads.
//
// It is at once the outbound queue and the memory that `resume` replays: events
// from the reader's cursor on are unread; behind the cursor the last ones are
// kept, up to 512 events or 256 KiB.
//
//   log.Append(InputQueued{...});      // engine thread
//   log.Take() -> Event                // the stream's writer, one at a time
//   log.Full()                         // the session pauses until it is not
//
// An Output that follows an unread Output of the same turn without a gap joins
// it: one event carries what is ready when a write can start. An event that was
// taken once never changes again.
//
// Thread-safe. Callbacks are called outside the log's lock.
#ifndef MILLRACE_SERVICES_SESSION_EVENT_LOG_H_
#define MILLRACE_SERVICES_SESSION_EVENT_LOG_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/session/event.h"

namespace millrace::session {

class EventLog {
 public:
  struct Limits {
    int max_unread_events = 512;
    int64_t max_unread_bytes = 256 << 10;
    int max_kept_events = 512;
    int64_t max_kept_bytes = 256 << 10;
    // Unread answers to the client's own messages beyond which a client is
    // taken for one that never reads.
    int max_unread_answers = 1024;
    int64_t max_unread_answer_bytes = 4 << 20;
  };

  explicit EventLog(const Limits& limits);

  // Numbers the event and keeps it. Never refuses: whoever produces without
  // end asks Full first.
  void Append(EventBody body);

  // The next unread event, if there is one; the cursor moves past it.
  std::optional<Event> Take();

  // Moves the cursor to the first event after `last_sequence_number`. False if
  // that one is no longer kept (a gap) or was never given: the cursor is then
  // at the next event to come.
  bool Seek(uint64_t last_sequence_number);

  // Whether the unread part has reached its limit.
  bool Full() const;
  // Whether the client has left too many answers unread.
  bool TooManyAnswers() const;
  int64_t unread_bytes() const;
  uint64_t last_sequence_number() const;

  // Called after every Append, by its thread. One at a time; null removes it.
  // After SetWakeUp returns the old one is not called: so it may not call
  // SetWakeUp, nor wait for who does.
  void SetWakeUp(std::function<void()> wake_up);
  // Called when Full turns to not Full by a Take or Seek. Set it before others
  // know the log.
  void SetOnDrained(std::function<void()> on_drained);

 private:
  struct Kept {
    Event event;
    int64_t bytes = 0;
    bool answer = false;
  };

  void AppendLocked(EventBody body) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool JoinsLast(const EventBody& body) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FullLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MoveCursor(uint64_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Counts the event as unread (+1) or as read (-1).
  void Count(const Kept& kept, int sign) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Kept& At(uint64_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Limits limits_;
  mutable absl::Mutex mutex_;
  // Numbers are consecutive; the last is next_number_ - 1.
  std::deque<Kept> events_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t cursor_ ABSL_GUARDED_BY(mutex_) = 1;       // number to be taken next
  uint64_t never_taken_ ABSL_GUARDED_BY(mutex_) = 1;  // the first such number
  int64_t unread_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t unread_answers_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t unread_answer_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t read_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // kept behind the cursor

  absl::Mutex wake_up_mutex_;  // held while it is called
  std::function<void()> wake_up_ ABSL_GUARDED_BY(wake_up_mutex_);
  std::function<void()> on_drained_;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_EVENT_LOG_H_
