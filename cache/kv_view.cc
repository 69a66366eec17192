#include "cache/kv_view.h"

#include <cstdlib>

namespace millrace::cache {

KvView::Slot KvView::Find(int64_t position) const {
  for (const KvRun& run : runs) {
    if (position < run.first_position || position >= run.end_position()) {
      continue;
    }
    const int64_t slot = run.first_slot + (position - run.first_position);
    const KvBlock block = run.BlockAt(slot / kBlockTokens);
    return {block.block, static_cast<int>(slot % kBlockTokens),
            block.value_block};
  }
  std::abort();  // REQUIRES: resident.
}

}  // namespace millrace::cache
