#include "tests/cache/contract/stamped_cache.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/cache/contract/random_case.h"

namespace millrace::cache {

StampedCache::StampedCache(const SequenceOptions& options, KvDtype dtype)
    : manager_(KvSpec{.dtype = dtype},
               static_cast<int32_t>(MaxBlocks(options, dtype))),
      id_(manager_.Open(options).value()),
      prefix_(options.policy->traits().protected_prefix),
      stamps_(MaxBlocks(options, dtype) * kBlockTokens, -1) {}

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
    Write(view->Find(t), t);
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
      const int64_t found = Written(view.Find(p));
      if (found != p) {
        violation_ =
            absl::StrCat("row ", t, " reads ", p, " and finds ", found);
      }
      const bool keep_wide =
          HasWidePrefix(manager_.spec().dtype) && p < prefix_;
      if (run.wide() != keep_wide) {
        violation_ = absl::StrCat("token ", p, " of ", prefix_,
                                  " protected ones is kept the wrong way");
      }
    }
  }
  return row;
}

void StampedCache::Write(const KvView::Slot& slot, int64_t position) {
  stamps_[slot.block * kBlockTokens + slot.slot] = position;
  if (!slot.kv_block().wide()) return;
  stamps_[slot.value_block * kBlockTokens + slot.slot] = position;
}

int64_t StampedCache::Written(const KvView::Slot& slot) const {
  const int64_t stamp = stamps_[slot.block * kBlockTokens + slot.slot];
  if (!slot.kv_block().wide()) return stamp;
  return stamps_[slot.value_block * kBlockTokens + slot.slot] == stamp ? stamp
                                                                       : -1;
}

}  // namespace millrace::cache
