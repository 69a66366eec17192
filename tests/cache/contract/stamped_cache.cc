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
  while (tokens > 0) {
    const int64_t chunk = std::min(tokens, manager_.MaxChunk(id_));
    if (!AppendChunk(chunk)) return false;
    tokens -= chunk;
  }
  return true;
}

bool StampedCache::AppendChunk(int64_t tokens) {
  const int64_t begin = length();
  const absl::StatusOr<KvView> view = manager_.Reserve(id_, tokens);
  if (!view.ok()) return false;
  for (int64_t t = begin; t < begin + tokens; ++t) {
    Stamp(*view, t) = t;
    rows_.push_back(Read(*view, t));
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
