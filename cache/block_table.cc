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
  while (static_cast<int64_t>(prefix_.size()) < prefix_blocks_ &&
         static_cast<int64_t>(prefix_.size()) < wanted) {
    prefix_.push_back(allocator_->Take());
  }
  while (tail_first_ + tail_blocks() < wanted) {
    tail_.push_back(allocator_->Take());
  }
}

void BlockTable::DropBefore(int64_t begin) {
  while (tail_blocks() > 0 && (tail_first_ + 1) * kBlockTokens <= begin) {
    allocator_->Release(tail_[tail_start_++]);
    ++tail_first_;
  }
  CompactTail();
}

void BlockTable::CompactTail() {
  if (tail_start_ <= tail_.size() / 2) return;
  tail_.erase(tail_.begin(), tail_.begin() + tail_start_);
  tail_start_ = 0;
}

void BlockTable::DropFrom(int64_t end) {
  const int64_t kept = BlocksFor(end);
  while (tail_blocks() > 0 && tail_first_ + tail_blocks() > kept) {
    allocator_->Release(tail_.back());
    tail_.pop_back();
  }
  while (static_cast<int64_t>(prefix_.size()) > kept) {
    allocator_->Release(prefix_.back());
    prefix_.pop_back();
  }
}

void BlockTable::Clear() {
  DropFrom(0);
  tail_.clear();
  tail_start_ = 0;
  tail_first_ = prefix_blocks_;
}

absl::Span<const int32_t> BlockTable::Blocks(const TextRange& range) const {
  const int64_t first = range.begin / kBlockTokens;
  const int64_t count = BlocksFor(range.end) - first;
  const absl::Span<const int32_t> prefix(prefix_);
  if (first < prefix_blocks_) {
    assert(first + count <= static_cast<int64_t>(prefix.size()));
    return prefix.subspan(first, count);
  }
  const auto tail = absl::Span<const int32_t>(tail_).subspan(tail_start_);
  assert(first >= tail_first_);
  return tail.subspan(first - tail_first_, count);
}

}  // namespace millrace::cache
