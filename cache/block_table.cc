#include "cache/block_table.h"

#include <cassert>

#include "cache/kv_spec.h"

namespace millrace::cache {
namespace {

int64_t BlocksFor(int64_t tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens;
}

}  // namespace

BlockTable::BlockTable(BlockAllocator* allocator, int64_t prefix_tokens,
                       bool wide_prefix)
    : allocator_(allocator),
      wide_prefix_(wide_prefix),
      prefix_blocks_(BlocksFor(prefix_tokens)),
      prefix_end_(wide_prefix ? prefix_tokens : prefix_blocks_ * kBlockTokens),
      tail_first_(prefix_end_ / kBlockTokens) {}

BlockTable::~BlockTable() { Clear(); }

void BlockTable::ExtendTo(int64_t end) {
  const int64_t prefix = BlocksFor(std::min(end, prefix_end_));
  while (static_cast<int64_t>(blocks_.size()) < prefix) {
    blocks_.push_back(allocator_->Take());
    if (wide_prefix_) value_blocks_.push_back(allocator_->Take());
  }
  if (end <= prefix_end_) return;
  while (tail_first_ + tail_blocks() < BlocksFor(end)) {
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
  const int64_t kept = end > prefix_end_ ? BlocksFor(end) : 0;
  while (tail_blocks() > 0 && tail_first_ + tail_blocks() > kept) {
    allocator_->Release(blocks_.back());
    blocks_.pop_back();
  }
  if (tail_blocks() > 0) return;
  if (gap_ > 0) CloseGap();
  const int64_t prefix = BlocksFor(std::min(end, prefix_end_));
  while (static_cast<int64_t>(blocks_.size()) > prefix) {
    allocator_->Release(blocks_.back());
    blocks_.pop_back();
    if (!wide_prefix_) continue;
    allocator_->Release(value_blocks_.back());
    value_blocks_.pop_back();
  }
}

void BlockTable::RestartTail(int64_t begin) {
  DropFrom(std::max(prefix_end_, tail_first_ * kBlockTokens));
  tail_first_ = std::max(prefix_end_, begin) / kBlockTokens;
}

void BlockTable::Clear() {
  DropFrom(0);
  tail_first_ = prefix_end_ / kBlockTokens;
}

absl::Span<const int32_t> BlockTable::Blocks(const TextRange& range) const {
  const int64_t first = range.begin / kBlockTokens;
  const int64_t count = BlocksFor(range.end) - first;
  const int64_t index =
      InPrefix(range) ? first : first - tail_first_ + tail_start();
  assert(InPrefix(range) || first >= tail_first_);
  assert(!InPrefix(range) || range.end <= prefix_end_ ||
         (!wide_prefix_ && tail_first_ == prefix_blocks_));
  return absl::MakeConstSpan(blocks_).subspan(static_cast<size_t>(index),
                                              static_cast<size_t>(count));
}

std::vector<KvBlock> BlockTable::BlocksUpTo(int64_t end) const {
  std::vector<KvBlock> blocks;
  const int64_t prefix = BlocksFor(std::min(end, prefix_end_));
  for (size_t i = 0; i < static_cast<size_t>(prefix); ++i) {
    blocks.emplace_back(blocks_[i], wide_prefix_ ? value_blocks_[i] : -1);
  }
  if (end <= prefix_end_) return blocks;
  const int64_t tail = std::min(tail_blocks(), BlocksFor(end) - tail_first_);
  for (int64_t i = 0; i < tail; ++i) {
    blocks.emplace_back(blocks_[static_cast<size_t>(tail_start() + i)]);
  }
  return blocks;
}

absl::Span<const int32_t> BlockTable::ValueBlocks(
    const TextRange& range) const {
  if (!wide_prefix_ || !InPrefix(range)) return {};
  const int64_t first = range.begin / kBlockTokens;
  return absl::MakeConstSpan(value_blocks_)
      .subspan(static_cast<size_t>(first),
               static_cast<size_t>(BlocksFor(range.end) - first));
}

}  // namespace millrace::cache
