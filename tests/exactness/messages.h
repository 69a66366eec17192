// A text that arrives in pieces of many sizes.
#ifndef MILLRACE_TESTS_EXACTNESS_MESSAGES_H_
#define MILLRACE_TESTS_EXACTNESS_MESSAGES_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "cache/cache_policy.h"
#include "tests/testing/model_runner.h"

namespace millrace::testing {

// Messages of 1, 3, n - 1, n and 3 n tokens, n being what a cache holds, cut
// into chunks of other sizes.
inline Rows ReadMessages(ModelRunner& runner,
                         std::shared_ptr<const cache::CachePolicy> policy,
                         int64_t n, absl::Span<const int32_t> text, int chunk) {
  const int64_t sizes[] = {1, 3, n - 1, n, 3 * n};
  const cache::SequenceId id = runner.Open(std::move(policy));
  Rows rows;
  for (int i = 0; !text.empty(); ++i) {
    const auto message = text.subspan(0, sizes[i % 5]);
    const Rows read = runner.Read(id, message, chunk);
    rows.insert(rows.end(), read.begin(), read.end());
    text.remove_prefix(message.size());
  }
  runner.manager().Close(id);
  return rows;
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_EXACTNESS_MESSAGES_H_
