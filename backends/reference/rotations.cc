#include "backends/reference/rotations.h"

#include "absl/types/span.h"

namespace millrace::backends::reference {

Rotation RotationAt(const Rope& rope, int64_t position) {
  Rotation rotation;
  rotation.cosines.resize(rope.num_pairs());
  rotation.sines.resize(rope.num_pairs());
  rope.Angles(position, absl::MakeSpan(rotation.cosines),
              absl::MakeSpan(rotation.sines));
  return rotation;
}

const Rotation& Rotations::At(int64_t position) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [at, is_new] = by_position_.try_emplace(position);
  if (is_new) at->second = RotationAt(rope_, position);
  return at->second;
}

}  // namespace millrace::backends::reference
