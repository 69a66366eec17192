#include "backends/quant/half.h"

#include <cstdint>

#include "absl/base/casts.h"

namespace millrace::backends {
namespace {

constexpr uint32_t kSignBit = 0x80000000;
constexpr uint32_t kFloatInfinity = 0x7f800000;

// Shifts right and rounds to nearest, ties to even.
uint32_t RoundingShift(uint32_t value, int shift) {
  const uint32_t half = uint32_t{1} << (shift - 1);
  const uint32_t odd = (value >> shift) & 1;
  return (value + half - 1 + odd) >> shift;
}

// Half-precision bits of a finite or infinite float >= 0.
uint16_t MagnitudeToHalf(uint32_t bits) {
  constexpr uint32_t kSmallestNormal = (127 - 14) << 23;  // 2^-14
  constexpr uint32_t kOverflow = 0x477ff000;              // 65520, to infinity
  if (bits >= kOverflow) return 0x7c00;
  if (bits >= kSmallestNormal) {
    return RoundingShift(bits - ((127 - 15) << 23), 13);
  }
  // Subnormal: the unit is 2^-24. Below half a unit nothing is left.
  const int exponent = bits >> 23;
  const int shift = 126 - exponent;
  if (shift > 24) return 0;
  const uint32_t significand = (bits & 0x007fffff) | 0x00800000;
  return RoundingShift(significand, shift);
}

}  // namespace

float HalfToFloat(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  const uint32_t fraction = half & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: fraction units of 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return absl::bit_cast<float>(absl::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 0x1f) {
    return absl::bit_cast<float>(sign | kFloatInfinity | fraction << 13);
  }
  return absl::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t FloatToHalf(float value) {
  const uint32_t bits = absl::bit_cast<uint32_t>(value);
  const uint16_t sign = (bits & kSignBit) >> 16;
  const uint32_t magnitude = bits & ~kSignBit;
  if (magnitude > kFloatInfinity) return sign | 0x7e00;
  return sign | MagnitudeToHalf(magnitude);
}

float Bfloat16ToFloat(uint16_t value) {
  return absl::bit_cast<float>(uint32_t{value} << 16);
}

uint16_t FloatToBfloat16(float value) {
  const uint32_t bits = absl::bit_cast<uint32_t>(value);
  if ((bits & ~kSignBit) > kFloatInfinity) return (bits >> 16) | 0x40;
  return RoundingShift(bits, 16);
}

}  // namespace millrace::backends
