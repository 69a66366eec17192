// How far keys and queries turn, computed once for each position.
#ifndef MILLRACE_BACKENDS_REFERENCE_ROTATIONS_H_
#define MILLRACE_BACKENDS_REFERENCE_ROTATIONS_H_

#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "backends/decoder/rope.h"

namespace millrace::backends::reference {

// Cosines and sines of the pairs of a head at one position.
struct Rotation {
  std::vector<float> cosines, sines;
};

Rotation RotationAt(const Rope& rope, int64_t position);

// Remembers the rotations that it was asked for.
//
// Thread-safe.
class Rotations {
 public:
  // Borrows `rope`.
  explicit Rotations(const Rope& rope) : rope_(rope) {}

  // Valid as long as this object.
  const Rotation& At(int64_t position);

 private:
  const Rope& rope_;
  std::mutex mutex_;
  std::unordered_map<int64_t, Rotation> by_position_;
};

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_ROTATIONS_H_
