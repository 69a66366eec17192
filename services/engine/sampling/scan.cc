#include "services/engine/sampling/scan.h"

#include <algorithm>
#include <bit>
#include <cstdint>

namespace millrace::engine {
namespace {

// Independent partial results: enough to hide how long one operation takes.
constexpr size_t kLanes = 32;

// exp(x) for x <= 0 without a branch or a call, so that loops over it run in
// vector registers: 2^n times a polynomial in the rest, which is at most
// ln(2)/2 from 0 (the Taylor series, whose next term is below 2e-7).
[[gnu::always_inline]] inline float Exp(float x) {
  x = x < -87.0f ? -87.0f : x;  // where floats begin to lose digits
  const int32_t n = static_cast<int32_t>(x * 1.44269504f - 0.5f);
  // ln(2) in two parts, the first with so few bits that the product is exact
  // (Cody and Waite, "Software Manual for the Elementary Functions", 1980).
  const float whole = static_cast<float>(n);
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  const float p =
      1 +
      r * (1 + r * (1.0f / 2 +
                    r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 +
                                                          r * (1.0f / 720))))));
  return p * std::bit_cast<float>((n + 127) << 23);
}

[[gnu::always_inline]] inline double Sum(absl::Span<const float> logits,
                                         float largest, float temperature) {
  // Single precision within a stretch, double from stretch to stretch.
  constexpr size_t kStretch = 8 * kLanes;
  double sum = 0;
  size_t i = 0;
  for (; i + kStretch <= logits.size(); i += kStretch) {
    float lanes[kLanes] = {};
    for (size_t j = 0; j < kStretch; j += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const float logit = logits.data()[i + j + lane];
        lanes[lane] += Exp((logit - largest) / temperature);
      }
    }
    for (const float lane : lanes) sum += lane;
  }
  for (; i < logits.size(); ++i) {
    sum += Exp((logits[i] - largest) / temperature);
  }
  return sum;
}

using SumFunction = double (*)(absl::Span<const float>, float, float);

double PlainSum(absl::Span<const float> logits, float largest,
                float temperature) {
  return Sum(logits, largest, temperature);
}

#ifdef __x86_64__
// The same code for wider registers: twice as fast, the same bits.
[[gnu::target("avx2")]] double Avx2Sum(absl::Span<const float> logits,
                                       float largest, float temperature) {
  return Sum(logits, largest, temperature);
}

SumFunction Widest() {
  return __builtin_cpu_supports("avx2") ? Avx2Sum : PlainSum;
}
#else
SumFunction Widest() { return PlainSum; }
#endif

}  // namespace

bool HasNonfinite(absl::Span<const float> logits) {
  // The exponent of infinity and NaN is all ones: one more carries into the
  // sign bit.
  uint32_t carried = 0;
  for (const float logit : logits) {
    carried |= (std::bit_cast<uint32_t>(logit) & 0x7FFFFFFF) + 0x00800000;
  }
  return carried >> 31 != 0;
}

float Largest(absl::Span<const float> logits) {
  float largest[kLanes];
  std::fill(largest, largest + kLanes, logits[0]);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    // Unasked, GCC unrolls it into one comparison after another.
#pragma omp simd
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float logit = logits.data()[i + lane];
      largest[lane] = logit > largest[lane] ? logit : largest[lane];
    }
  }
  for (; i < logits.size(); ++i) largest[0] = std::max(largest[0], logits[i]);
  return *std::max_element(largest, largest + kLanes);
}

size_t IndexOf(absl::Span<const float> logits, float logit) {
  constexpr size_t kStretch = 8 * kLanes;
  size_t i = 0;
  for (; i + kStretch <= logits.size(); i += kStretch) {
    uint32_t found = 0;
#pragma omp simd reduction(| : found)
    for (size_t j = 0; j < kStretch; ++j) {
      found |= logits.data()[i + j] == logit;
    }
    if (found != 0) break;
  }
  while (logits[i] != logit) ++i;
  return i;
}

double SumOfWeights(absl::Span<const float> logits, float largest,
                    float temperature) {
  static const SumFunction sum = Widest();
  return sum(logits, largest, temperature);
}

}  // namespace millrace::engine
