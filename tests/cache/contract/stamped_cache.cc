#include "tests/cache/contract/stamped_cache.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/cache/contract/random_case.h"

namespace millrace::cache {

StampedCache::StampedCache(const SequenceOptions& options)
    : manager_(KvSpec{}, static_cast<int32_t>(MaxBlocks(options))),
      id_(manager_.Open(options).value()),
      stamps_(MaxBlocks(options) * kBlockTokens, -1) {}

bool StampedCache::Append(int64_t tokens) {
  rows_.clear();
  const int64_t end = length() + tokens;
  for (int64_t next = length(); next < end; next = std::max(next, length())) {
    const int64_t begin = manager_.Rebuild(id_, next);
    if (!AppendChunk(std::min(end - begin, manager_.MaxChunk(id_)), next)) {
      return false;
    }
  }
  return true;
}

bool StampedCache::AppendChunk(int64_t tokens, int64_t first_row) {
  const int64_t begin = length();
  const absl::StatusOr<KvView> view = manager_.Reserve(id_, tokens);
  if (!view.ok()) return false;
  for (int64_t t = begin; t < begin + tokens; ++t) {
    Stamp(*view, t) = t;
    if (t >= first_row) rows_.push_back(Read(*view, t));
  }
  manager_.Commit(id_);
  return true;
}

StampedCache::Row StampedCache::Read(const KvView& view, int64_t t) {
  Row row;
  for (const KvRun& run : view.runs) {
    for (int64_t p = run.first_position; p < run.end_position(); ++p) {
      if (!Sees(absl::MakeConstSpan(&run.rule, 1), t, p)) continue;
      row.push_back({p, run.rule.QueryPosition(t) - p});
      if (Stamp(view, p) != p) {
        violation_ = absl::StrCat("row ", t, " reads ", p, " and finds ",
                                  Stamp(view, p));
      }
    }
  }
  return row;
}

int64_t& StampedCache::Stamp(const KvView& view, int64_t position) {
  const KvView::Slot slot = view.Find(position);
  return stamps_[slot.block * kBlockTokens + slot.slot];
}

}  // namespace millrace::cache
