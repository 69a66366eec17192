// PendingTokens are the tokens of a sequence that are appended and not yet
// computed, with the step at which each came in.
//
// Amortised constant time per token; gives memory back once it has run empty.
#ifndef MILLRACE_SERVICES_ENGINE_PENDING_TOKENS_H_
#define MILLRACE_SERVICES_ENGINE_PENDING_TOKENS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/types/span.h"

namespace millrace::engine {

class PendingTokens {
 public:
  // `step` never decreases from call to call.
  void Append(absl::Span<const int32_t> ids, uint64_t step);

  // Puts `ids` before all others, as if they had come with the first of them.
  void Prepend(absl::Span<const int32_t> ids);

  // The first `count`, valid until the next call that is not const.
  // REQUIRES: 0 <= count <= size().
  absl::Span<const int32_t> First(int64_t count) const;
  void RemoveFirst(int64_t count);
  // Drops all but the first `count`.
  void KeepFirst(int64_t count);
  void Clear() { KeepFirst(0); }

  int64_t size() const { return static_cast<int64_t>(ids_.size() - begin_); }
  bool empty() const { return size() == 0; }
  // The step of the first token; 0 if there is none.
  uint64_t waiting_since() const {
    return arrivals_.empty() ? 0 : arrivals_.front().step;
  }

 private:
  struct Arrival {
    uint64_t step;
    int64_t tokens;
  };
  void ReclaimMemory();

  std::vector<int32_t> ids_;  // from begin_ on
  size_t begin_ = 0;
  std::deque<Arrival> arrivals_;  // distinct steps; their tokens add to size()
};

}  // namespace millrace::engine

#endif  // MILLRACE_SERVICES_ENGINE_PENDING_TOKENS_H_
