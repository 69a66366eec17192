// Tells ThreadSanitizer about Abseil's locks.
//
// The distribution's Abseil is compiled without instrumentation, so TSan sees
// none of its synchronisation and calls everything that an absl::Mutex guards a
// race. The linker sends the calls listed in BUILD.bazel through the functions
// below (--wrap), which add the missing happens-before edges. Linked by
// --config=tsan only.
//
// Not covered: Notification::HasBeenNotified() (inline, with its store inside
// the library), BlockingCounter, Barrier, reader locks with conditions.

#include <sanitizer/tsan_interface.h>
#include <unistd.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

// Declares the original as real_NAME and opens the definition of the function
// that stands in for it. SYMBOL is the mangled name; absl::debian3 is the
// inline namespace of Debian 12's package.
#define WRAP(result, name, symbol, ...)                  \
  result real_##name(__VA_ARGS__) asm("__real_" symbol); \
  result wrap_##name(__VA_ARGS__) asm("__wrap_" symbol); \
  result wrap_##name(__VA_ARGS__)

using absl::Condition;
using absl::CondVar;
using absl::Duration;
using absl::Mutex;
using absl::Notification;
using absl::Time;

WRAP(void, lock, "_ZN4absl7debian35Mutex4LockEv", Mutex* mu) {
  real_lock(mu);
  __tsan_acquire(mu);
}

WRAP(void, unlock, "_ZN4absl7debian35Mutex6UnlockEv", Mutex* mu) {
  __tsan_release(mu);
  real_unlock(mu);
}

WRAP(bool, try_lock, "_ZN4absl7debian35Mutex7TryLockEv", Mutex* mu) {
  const bool locked = real_try_lock(mu);
  if (locked) __tsan_acquire(mu);
  return locked;
}

WRAP(void, reader_lock, "_ZN4absl7debian35Mutex10ReaderLockEv", Mutex* mu) {
  real_reader_lock(mu);
  __tsan_acquire(mu);
}

WRAP(void, reader_unlock, "_ZN4absl7debian35Mutex12ReaderUnlockEv", Mutex* mu) {
  __tsan_release(mu);
  real_reader_unlock(mu);
}

// The library evaluates conditions where TSan does not look; we poll instead.
WRAP(bool, await_until,
     "_ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE",
     Mutex* mu, const Condition& condition, Time deadline) {
  while (!condition.Eval()) {
    if (absl::Now() >= deadline) return false;
    wrap_unlock(mu);
    usleep(100);
    wrap_lock(mu);
  }
  return true;
}

WRAP(bool, await_for,
     "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE",
     Mutex* mu, const Condition& condition, Duration timeout) {
  return wrap_await_until(mu, condition, absl::Now() + timeout);
}

WRAP(void, await, "_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE", Mutex* mu,
     const Condition& condition) {
  wrap_await_until(mu, condition, absl::InfiniteFuture());
}

WRAP(void, lock_when, "_ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE",
     Mutex* mu, const Condition& condition) {
  wrap_lock(mu);
  wrap_await(mu, condition);
}

WRAP(void, wait, "_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE", CondVar* cv,
     Mutex* mu) {
  __tsan_release(mu);
  real_wait(cv, mu);
  __tsan_acquire(mu);
}

WRAP(bool, wait_for,
     "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE",
     CondVar* cv, Mutex* mu, Duration timeout) {
  __tsan_release(mu);
  const bool timed_out = real_wait_for(cv, mu, timeout);
  __tsan_acquire(mu);
  return timed_out;
}

WRAP(bool, wait_until,
     "_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE",
     CondVar* cv, Mutex* mu, Time deadline) {
  __tsan_release(mu);
  const bool timed_out = real_wait_until(cv, mu, deadline);
  __tsan_acquire(mu);
  return timed_out;
}

WRAP(void, notify, "_ZN4absl7debian312Notification6NotifyEv",
     Notification* notification) {
  __tsan_release(notification);
  real_notify(notification);
}

WRAP(void, wait_for_notification,
     "_ZNK4absl7debian312Notification19WaitForNotificationEv",
     const Notification* notification) {
  real_wait_for_notification(notification);
  __tsan_acquire(const_cast<Notification*>(notification));
}

// Inside the library: a spin lock around what it knows of the order of locks,
// and the atomic reference count of a status that threads share. TSan sees
// neither, but the memory functions and deletes that they guard.
extern "C" const char* __tsan_default_suppressions() {
  return "race:absl::debian3::synchronization_internal::GraphCycles\n"
         "race:absl::debian3::Status::UnrefNonInlined\n";
}
