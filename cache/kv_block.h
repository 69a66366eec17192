// Where sixteen tokens lie in a KvStorage.
#ifndef MILLRACE_CACHE_KV_BLOCK_H_
#define MILLRACE_CACHE_KV_BLOCK_H_

#include <cstdint>

namespace millrace::cache {

// The number of a block, or the two numbers of a wide pair. A pair is any two
// blocks of the same storage; the first holds the keys of its tokens in half
// precision where a block has keys and values, the second their values. It is
// how a storage of 8-bit numbers keeps tokens that must stay more exact:
//
//   KvBlock narrow = 7;
//   KvBlock wide = {7, 3};  // keys in 7, values in 3
struct KvBlock {
  KvBlock(int32_t block) : block(block) {}  // NOLINT: a number is a block
  KvBlock(int32_t block, int32_t value_block)
      : block(block), value_block(value_block) {}

  bool wide() const { return value_block >= 0; }
  friend bool operator==(const KvBlock&, const KvBlock&) = default;

  int32_t block;
  int32_t value_block = -1;  // -1: `block` holds the values too
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_KV_BLOCK_H_
