// A sequence under a policy, told in the ranges that are resident.
#ifndef MILLRACE_TESTS_CACHE_TOLD_SEQUENCE_H_
#define MILLRACE_TESTS_CACHE_TOLD_SEQUENCE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cache/cache_manager.h"

namespace millrace::cache {

// "[0,4)[5,14)".
inline std::string Told(const std::vector<TextRange>& ranges) {
  std::string text;
  for (const TextRange& r : ranges) {
    absl::StrAppend(&text, "[", r.begin, ",", r.end, ")");
  }
  return text;
}

class ToldSequence {
 public:
  explicit ToldSequence(std::shared_ptr<const CachePolicy> policy,
                        int64_t chunk = 64, int64_t rollback = 0,
                        KvDtype dtype = KvDtype::kF16)
      : options_{.policy = std::move(policy),
                 .max_chunk_tokens = chunk,
                 .rollback_tokens = rollback},
        manager_(KvSpec{.dtype = dtype},
                 static_cast<int32_t>(MaxBlocks(options_, dtype))),
        id_(manager_.Open(options_).value()) {}

  // Appends `tokens` in chunks; stops at the first that is refused.
  absl::Status Append(int64_t tokens, int64_t chunk = 64) {
    const int64_t end = manager_.Length(id_) + tokens;
    for (int64_t next = manager_.Length(id_); next < end;
         next = std::max(next, manager_.Length(id_))) {
      const int64_t rest = end - manager_.Rebuild(id_, next);
      const auto view = manager_.Reserve(
          id_, std::min({rest, chunk, manager_.MaxChunk(id_)}));
      if (!view.ok()) return view.status();
      manager_.Commit(id_);
    }
    return absl::OkStatus();
  }

  absl::Status Decode(int64_t tokens) { return Append(tokens, 1); }

  std::string Resident() const { return Told(manager_.Resident(id_)); }

  CacheManager& manager() { return manager_; }
  SequenceId id() const { return id_; }

 private:
  const SequenceOptions options_;
  CacheManager manager_;
  const SequenceId id_;
};

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_TOLD_SEQUENCE_H_
