// What one token's keys and values look like, and what they cost.
#ifndef MILLRACE_CACHE_KV_SPEC_H_
#define MILLRACE_CACHE_KV_SPEC_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace millrace::cache {

// The tokens of one block, in every layout and on every backend.
inline constexpr int kBlockTokens = 16;

// How a number of a key or a value is stored: as a float, in half precision,
// as a bfloat16, which has the range of a float and 8 significant bits, or as
// an integer of -127 .. 127 times the scale of its key or value.
enum class KvDtype { kF32, kF16, kBF16, kInt8 };

struct KvDtypeInfo {
  KvDtype dtype;
  absl::string_view name;  // in flags and in answers to clients
  int64_t bytes;           // of one stored number
  // Each key and each value of a KV head has a scale, a float. What every row
  // reads for ever, a policy's protected prefix, is kept in half precision.
  bool scaled;
};

// Every dtype, in the order of its enumerator.
inline constexpr KvDtypeInfo kKvDtypes[] = {
    {KvDtype::kF32, "f32", 4, false},
    {KvDtype::kF16, "f16", 2, false},
    {KvDtype::kBF16, "bf16", 2, false},
    {KvDtype::kInt8, "int8", 1, true},
};

static_assert([] {
  int i = 0;
  for (const KvDtypeInfo& info : kKvDtypes) {
    if (info.dtype != static_cast<KvDtype>(i++)) return false;
  }
  return true;
}());

constexpr const KvDtypeInfo& InfoOf(KvDtype dtype) {
  return kKvDtypes[static_cast<size_t>(dtype)];
}

// "bf16"
constexpr absl::string_view KvDtypeName(KvDtype dtype) {
  return InfoOf(dtype).name;
}

// Bytes of one stored number: 4, 2 or 1.
constexpr int64_t BytesPerValue(KvDtype dtype) { return InfoOf(dtype).bytes; }

// Bytes of what the numbers of one key, or of one value, have in common.
constexpr int64_t BytesPerScale(KvDtype dtype) {
  return InfoOf(dtype).scaled ? 4 : 0;
}

// Whether the tokens of a policy's protected prefix are kept in half precision,
// in pairs of blocks of their own (kv_block.h).
constexpr bool HasWidePrefix(KvDtype dtype) { return InfoOf(dtype).scaled; }

// The dtype of that name; none: there is no such dtype.
constexpr std::optional<KvDtype> FindKvDtype(absl::string_view name) {
  for (const KvDtypeInfo& info : kKvDtypes) {
    if (info.name == name) return info.dtype;
  }
  return std::nullopt;
}

// The shape of a model's keys and values.
struct KvSpec {
  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;  // numbers in one key, and in one value
  KvDtype dtype = KvDtype::kF16;

  // Bytes of one token's keys and values over all layers, scales included; a
  // token of a wide prefix takes twice as many.
  int64_t BytesPerToken() const {
    const int64_t vector =
        BytesPerValue(dtype) * head_dim + BytesPerScale(dtype);
    return 2 * vector * num_layers * num_kv_heads;
  }
  int64_t BytesPerBlock() const { return kBlockTokens * BytesPerToken(); }

  friend bool operator==(const KvSpec&, const KvSpec&) = default;
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_KV_SPEC_H_
