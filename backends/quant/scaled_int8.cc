#include "backends/quant/scaled_int8.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/base/casts.h"

namespace millrace::backends {
namespace {

// Below, 1 / scale would leave the range of a float.
constexpr float kTiny = 0x1p-100f;

// To nearest, ties to even.
float RoundTo16Bits(float x) {
  const uint32_t bits = absl::bit_cast<uint32_t>(x);
  return absl::bit_cast<float>((bits + 0x7f + (bits >> 8 & 1)) & ~0xffu);
}

}  // namespace

float RoundToScaledInt8(absl::Span<const float> numbers, int8_t* q) {
  float largest = 0;
  bool finite = true;
  for (const float x : numbers) {
    largest = std::max(largest, std::abs(x));
    finite &= std::isfinite(x);
  }
  if (!finite || largest < kTiny) {
    std::fill_n(q, numbers.size(), int8_t{0});
    return finite ? 0 : std::numeric_limits<float>::quiet_NaN();
  }
  const float scale = RoundTo16Bits(largest / 127);
  const float inverse = 1 / scale;
  for (size_t i = 0; i < numbers.size(); ++i) {
    q[i] = static_cast<int8_t>(std::nearbyint(numbers[i] * inverse));
  }
  return scale;
}

}  // namespace millrace::backends
