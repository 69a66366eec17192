// A cache manager over a memory in which every slot holds the text position
// that was written there, so that a reader can tell a token from another's. A
// token of a wide pair is written to both of its blocks.
#ifndef MILLRACE_TESTS_CACHE_CONTRACT_STAMPED_CACHE_H_
#define MILLRACE_TESTS_CACHE_CONTRACT_STAMPED_CACHE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cache/cache_manager.h"

namespace millrace::cache {

// One sequence, in a pool of exactly the blocks that it may hold.
class StampedCache {
 public:
  StampedCache(const SequenceOptions& options, KvDtype dtype);

  // Appends as a backend would: reserves, writes, and reads what each row
  // sees, tokens first that the policy wants computed anew. What a row sees and
  // has not been written, or has been overwritten, goes to `violation`. Ends
  // chunks where the policy's rules change. False if the policy refuses.
  bool Append(int64_t tokens);

  // What a row of the last Append saw, ascending.
  struct Key {
    int64_t position, distance;
    friend bool operator==(const Key&, const Key&) = default;
  };
  using Row = std::vector<Key>;
  const std::vector<Row>& rows() const { return rows_; }

  const std::string& violation() const { return violation_; }

  CacheManager& manager() { return manager_; }
  SequenceId id() const { return id_; }
  int64_t length() const { return manager_.Length(id_); }

 private:
  // Rows before `first_row` are not looked at.
  bool AppendChunk(int64_t tokens, int64_t first_row);
  void Write(const KvView::Slot& slot, int64_t position);
  // The position that was written there; of a wide pair, to both its blocks.
  int64_t Written(const KvView::Slot& slot) const;
  Row Read(const KvView& view, int64_t t);

  CacheManager manager_;
  const SequenceId id_;
  const int64_t prefix_;
  std::vector<int64_t> stamps_;  // [num_blocks, kBlockTokens]
  std::vector<Row> rows_;
  std::string violation_;
};

}  // namespace millrace::cache

#endif  // MILLRACE_TESTS_CACHE_CONTRACT_STAMPED_CACHE_H_
