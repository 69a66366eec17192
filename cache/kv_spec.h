// What one token's keys and values look like, and what they cost.
#ifndef MILLRACE_CACHE_KV_SPEC_H_
#define MILLRACE_CACHE_KV_SPEC_H_

#include <cstdint>

namespace millrace::cache {

// The tokens of one block, in every layout and on every backend.
inline constexpr int kBlockTokens = 16;

enum class KvDtype { kF32, kF16 };

// Bytes of one stored number: 4 or 2.
constexpr int64_t BytesPerValue(KvDtype dtype) {
  return dtype == KvDtype::kF32 ? 4 : 2;
}

// The shape of a model's keys and values.
struct KvSpec {
  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;  // numbers in one key, and in one value
  KvDtype dtype = KvDtype::kF16;

  // Bytes of one token's keys and values over all layers.
  int64_t BytesPerToken() const {
    return 2 * BytesPerValue(dtype) * num_layers * num_kv_heads * head_dim;
  }
  int64_t BytesPerBlock() const { return kBlockTokens * BytesPerToken(); }

  friend bool operator==(const KvSpec&, const KvSpec&) = default;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_KV_SPEC_H_
