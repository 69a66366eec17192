// Tests that ThreadSanitizer understands Abseil's locks, as set up by
// deploy/bazel/tsan: guarded data is no race, and unguarded data still is one.
// Without --config=tsan the first tests only show that the locks work.

#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace {

using absl::Condition;
using absl::CondVar;
using absl::Mutex;
using absl::MutexLock;

void AddUnder(Mutex* mu, int* sum) {
  for (int i = 0; i < 1000; ++i) {
    MutexLock lock(mu);
    ++*sum;
  }
}

bool IsFive(int* value) { return *value == 5; }
bool IsSeven(int* value) { return *value == 7; }

TEST(TsanTest, AMutexGuards) {
  Mutex mu;
  int sum = 0;
  std::thread other(AddUnder, &mu, &sum);
  AddUnder(&mu, &sum);
  other.join();
  EXPECT_EQ(sum, 2000);
}

TEST(TsanTest, AReaderLockGuards) {
  Mutex mu;
  int sum = 0, last = 0;
  std::thread other(AddUnder, &mu, &sum);
  for (int i = 0; i < 1000; ++i) {
    absl::ReaderMutexLock lock(&mu);
    EXPECT_GE(sum, last);
    last = sum;
  }
  other.join();
}

TEST(TsanTest, AConditionIsReadUnderItsMutex) {
  Mutex mu;
  int value = 0;
  std::thread other([&] {
    mu.LockWhen(Condition(IsFive, &value));
    value = 7;
    mu.Unlock();
  });
  mu.Lock();
  value = 5;
  mu.Await(Condition(IsSeven, &value));
  EXPECT_FALSE(
      mu.AwaitWithTimeout(Condition(IsFive, &value), absl::Milliseconds(1)));
  mu.Unlock();
  other.join();
}

TEST(TsanTest, AConditionVariableHandsOver) {
  Mutex mu;
  CondVar changed;
  int turn = 0;
  std::thread other([&] {
    MutexLock lock(&mu);
    while (turn != 1) changed.Wait(&mu);
    turn = 2;
    changed.Signal();
  });
  MutexLock lock(&mu);
  turn = 1;
  changed.Signal();
  while (turn != 2) changed.WaitWithTimeout(&mu, absl::Seconds(1));
  mu.Unlock();
  other.join();
  mu.Lock();
}

TEST(TsanTest, ANotificationPublishes) {
  absl::Notification done;
  int value = 0;
  std::thread other([&] {
    value = 1;
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_EQ(value, 1);
  other.join();
}

#ifdef __SANITIZE_THREAD__
void Race() {
  Mutex one, another;
  int sum = 0;
  std::thread other(AddUnder, &one, &sum);
  AddUnder(&another, &sum);
  other.join();
  std::exit(0);  // TSan turns this into 66 where it saw a race.
}

TEST(TsanTest, DifferentMutexesDoNotGuard) {
  EXPECT_EXIT(Race(), testing::ExitedWithCode(66), "data race");
}
#endif

}  // namespace
