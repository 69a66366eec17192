#include "backends/decoder/rope.h"

#include <cmath>
#include <numbers>

namespace millrace::backends {

Rope::Rope(int head_dim, double base) {
  for (int i = 0; i < head_dim / 2; ++i) {
    const double turns =
        std::pow(base, -2.0 * i / head_dim) / (2 * std::numbers::pi);
    // At most a sixth of a turn for any base of 1 or more; beyond, whole turns
    // do not matter.
    steps_.push_back(static_cast<uint64_t>(
        std::round(std::ldexp(turns - std::floor(turns), 64))));
  }
}

void Rope::Angles(int64_t position, absl::Span<float> cosines,
                  absl::Span<float> sines) const {
  const double unit = std::ldexp(2 * std::numbers::pi, -64);
  for (int i = 0; i < num_pairs(); ++i) {
    const uint64_t phase = static_cast<uint64_t>(position) * steps_[i];
    const double angle =
        static_cast<double>(static_cast<int64_t>(phase)) * unit;
    cosines[i] = static_cast<float>(std::cos(angle));
    sines[i] = static_cast<float>(std::sin(angle));
  }
}

void Rotate(absl::Span<const float> cosines, absl::Span<const float> sines,
            absl::Span<float> head) {
  for (size_t i = 0; i < cosines.size(); ++i) {
    const float x = head[2 * i], y = head[2 * i + 1];
    head[2 * i] = x * cosines[i] - y * sines[i];
    head[2 * i + 1] = x * sines[i] + y * cosines[i];
  }
}

}  // namespace millrace::backends
