// InputCredit bounds the input that waits to be read.
//
// A waiting input counts at least kMinBytes, so that many small ones are
// bounded too. Thread-safe.
#ifndef MILLRACE_SERVICES_SESSION_INPUT_CREDIT_H_
#define MILLRACE_SERVICES_SESSION_INPUT_CREDIT_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace millrace::session {

class InputCredit {
 public:
  static constexpr int64_t kMinBytes = 64;

  explicit InputCredit(int64_t limit) : limit_(limit) {}

  // False if an input of `bytes` does not fit beside what waits.
  bool Take(int64_t bytes) {
    if (pending_.fetch_add(Cost(bytes)) + bytes <= limit_) return true;
    Return(bytes);
    return false;
  }
  // An input of `bytes` waits no more.
  void Return(int64_t bytes) { pending_ -= Cost(bytes); }

  int64_t pending() const { return pending_; }
  int64_t limit() const { return limit_; }

 private:
  static int64_t Cost(int64_t bytes) { return std::max(bytes, kMinBytes); }

  const int64_t limit_;
  std::atomic<int64_t> pending_ = 0;
};

}  // namespace millrace::session

#endif  // MILLRACE_SERVICES_SESSION_INPUT_CREDIT_H_
