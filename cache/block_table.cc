#include "cache/block_table.h"

#include <cassert>

#include "cache/kv_spec.h"

namespace millrace::cache {
namespace {

int64_t BlocksFor(int64_t tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens;
}

}  // namespace

BlockTable::BlockTable(BlockAllocator* allocator, int64_t prefix_tokens)
    : allocator_(allocator),
      prefix_blocks_(BlocksFor(prefix_tokens)),
      tail_first_(prefix_blocks_) {}

BlockTable::~BlockTable() { Clear(); }

void BlockTable::ExtendTo(int64_t end) {
  const int64_t wanted = BlocksFor(end);
  while (tail_first_ + tail_blocks() < wanted ||
         static_cast<int64_t>(blocks_.size()) <
             std::min(prefix_blocks_, wanted)) {
    blocks_.push_back(allocator_->Take());
  }
}

void BlockTable::DropBefore(int64_t begin) {
  while (tail_blocks() > 0 && (tail_first_ + 1) * kBlockTokens <= begin) {
    allocator_->Release(blocks_[static_cast<size_t>(tail_start())]);
    ++gap_;
    ++tail_first_;
  }
  if (tail_blocks() == 0) {
    tail_first_ = std::max(tail_first_, begin / kBlockTokens);
  }
  if (gap_ > tail_blocks()) CloseGap();
}

void BlockTable::CloseGap() {
  const auto begin = blocks_.begin() + prefix_blocks_;
  blocks_.erase(begin, begin + gap_);
  gap_ = 0;
}

void BlockTable::DropFrom(int64_t end) {
  const int64_t kept = BlocksFor(end);
  while (tail_blocks() > 0 && tail_first_ + tail_blocks() > kept) {
    allocator_->Release(blocks_.back());
    blocks_.pop_back();
  }
  if (tail_blocks() > 0) return;
  if (gap_ > 0) CloseGap();
  while (static_cast<int64_t>(blocks_.size()) > kept) {
    allocator_->Release(blocks_.back());
    blocks_.pop_back();
  }
}

void BlockTable::RestartTail(int64_t begin) {
  DropFrom(tail_first_ * kBlockTokens);
  tail_first_ = std::max(prefix_blocks_, begin / kBlockTokens);
}

void BlockTable::Clear() {
  DropFrom(0);
  tail_first_ = prefix_blocks_;
}

absl::Span<const int32_t> BlockTable::Blocks(const TextRange& range) const {
  const int64_t first = range.begin / kBlockTokens;
  const int64_t count = BlocksFor(range.end) - first;
  const int64_t index =
      first < prefix_blocks_ ? first : first - tail_first_ + tail_start();
  assert(first < prefix_blocks_ || first >= tail_first_);
  assert(first >= prefix_blocks_ || first + count <= prefix_blocks_ ||
         tail_first_ == prefix_blocks_);
  return absl::MakeConstSpan(blocks_).subspan(static_cast<size_t>(index),
                                              static_cast<size_t>(count));
}

}  // namespace millrace::cache
