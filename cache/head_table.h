// HeadTable<T> holds a number for each layer, KV head and cache position of a
// sequence.
#ifndef MILLRACE_CACHE_HEAD_TABLE_H_
#define MILLRACE_CACHE_HEAD_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace millrace::cache {

template <class T>
class HeadTable {
 public:
  HeadTable(int num_layers, int num_kv_heads, int64_t capacity)
      : num_layers_(num_layers),
        num_kv_heads_(num_kv_heads),
        capacity_(capacity),
        values_(static_cast<size_t>(num_layers * num_kv_heads * capacity)) {}

  int num_layers() const { return num_layers_; }
  int num_kv_heads() const { return num_kv_heads_; }
  int64_t capacity() const { return capacity_; }

  // [capacity], by position within the cache.
  absl::Span<T> At(int layer, int kv_head) {
    return absl::MakeSpan(values_).subspan(Offset(layer, kv_head),
                                           static_cast<size_t>(capacity_));
  }
  absl::Span<const T> At(int layer, int kv_head) const {
    return absl::MakeConstSpan(values_).subspan(Offset(layer, kv_head),
                                                static_cast<size_t>(capacity_));
  }

 private:
  size_t Offset(int layer, int kv_head) const {
    return static_cast<size_t>((int64_t{layer} * num_kv_heads_ + kv_head) *
                               capacity_);
  }

  int num_layers_, num_kv_heads_;
  int64_t capacity_;
  std::vector<T> values_;  // [layer][kv_head][capacity]
};

}  // namespace millrace::cache

#endif  // MILLRACE_CACHE_HEAD_TABLE_H_
