// What a storage of keys and values makes of numbers.
#ifndef MILLRACE_TESTS_TESTING_ROUNDED_H_
#define MILLRACE_TESTS_TESTING_ROUNDED_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backends/quant/half.h"
#include "backends/quant/scaled_int8.h"
#include "cache/kv_spec.h"

namespace millrace::testing {

// A key or a value of one head, in place: {1 + 0x1p-9f} becomes {1} in kBF16,
// and stays what it is in half precision.
inline void Round(absl::Span<float> vector, cache::KvDtype dtype) {
  switch (dtype) {
    case cache::KvDtype::kF32:
      return;
    case cache::KvDtype::kF16:
      for (float& x : vector) {
        x = backends::HalfToFloat(backends::FloatToHalf(x));
      }
      return;
    case cache::KvDtype::kBF16:
      for (float& x : vector) {
        x = backends::Bfloat16ToFloat(backends::FloatToBfloat16(x));
      }
      return;
    case cache::KvDtype::kInt8: {
      std::vector<int8_t> q(vector.size());
      const float scale = backends::RoundToScaledInt8(vector, q.data());
      for (size_t i = 0; i < q.size(); ++i) vector[i] = scale * q[i];
      return;
    }
  }
}

// Many of them, one after the other.
inline std::vector<float> Rounded(std::vector<float> vectors, int head_dim,
                                  cache::KvDtype dtype) {
  for (size_t i = 0; i < vectors.size(); i += head_dim) {
    Round(absl::MakeSpan(vectors).subspan(i, head_dim), dtype);
  }
  return vectors;
}

// The distance of two neighbouring numbers, at the most: as a part of them, or
// if they share a scale, of the largest.
inline double Spacing(cache::KvDtype dtype) {
  switch (dtype) {
    case cache::KvDtype::kF32:
      break;
    case cache::KvDtype::kF16:
      return 0x1p-10;
    case cache::KvDtype::kBF16:
      return 0x1p-7;
    case cache::KvDtype::kInt8:
      return 1.0 / 127;
  }
  return 0x1p-23;
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_ROUNDED_H_
