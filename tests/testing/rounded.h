// What a storage of keys and values makes of a number.
#ifndef MILLRACE_TESTS_TESTING_ROUNDED_H_
#define MILLRACE_TESTS_TESTING_ROUNDED_H_

#include "backends/quant/half.h"
#include "cache/kv_spec.h"

namespace millrace::testing {

// Rounded(1 + 0x1p-9f, kBF16) is 1; in half precision nothing is lost.
inline float Rounded(float value, cache::KvDtype dtype) {
  switch (dtype) {
    case cache::KvDtype::kF32:
      break;
    case cache::KvDtype::kF16:
      return backends::HalfToFloat(backends::FloatToHalf(value));
    case cache::KvDtype::kBF16:
      return backends::Bfloat16ToFloat(backends::FloatToBfloat16(value));
  }
  return value;
}

// The distance of two neighbouring numbers, as a part of them, at the most.
inline double Spacing(cache::KvDtype dtype) {
  switch (dtype) {
    case cache::KvDtype::kF32:
      break;
    case cache::KvDtype::kF16:
      return 0x1p-10;
    case cache::KvDtype::kBF16:
      return 0x1p-7;
  }
  return 0x1p-23;
}

}  // namespace millrace::testing

#endif  // MILLRACE_TESTS_TESTING_ROUNDED_H_
