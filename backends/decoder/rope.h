// Rotary position angles that stay exact at any text position.
//
// The phase of pair i at position p is p * step_i modulo one turn, in 64-bit
// fixed point: the wrap-around of the multiplication is the reduction. Phases
// are exactly linear, phase(t) - phase(j) = phase(t - j), so the score of a
// query and a key depends on their distance alone, at position 5 and at 2^40.
//
//   step_i     = round(2^64 * base^(-2i / head_dim) / (2 pi))
//   phase(p,i) = uint64(p) * step_i   mod 2^64
//   angle      = int64(phase) * 2 pi / 2^64          in [-pi, pi)
//
// (Angles as p * frequency in float are wrong by 0.05 radians at a million.)
#ifndef MILLRACE_BACKENDS_DECODER_ROPE_H_
#define MILLRACE_BACKENDS_DECODER_ROPE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace millrace::backends {

// Thread-safe: immutable.
class Rope {
 public:
  // REQUIRES: head_dim even and positive, base > 0.
  Rope(int head_dim, double base);

  // Pairs of one head: head_dim / 2.
  int num_pairs() const { return static_cast<int>(steps_.size()); }

  // step_i, [num_pairs()].
  absl::Span<const uint64_t> steps() const { return steps_; }

  // Cosine and sine of every pair's angle at `position`.
  // REQUIRES: both spans have num_pairs() values.
  void Angles(int64_t position, absl::Span<float> cosines,
              absl::Span<float> sines) const;

 private:
  std::vector<uint64_t> steps_;
};

// Rotates one head in place: pairs are neighbours, (x[2i], x[2i + 1]), as GGUF
// files of the llama architecture have them.
void Rotate(absl::Span<const float> cosines, absl::Span<const float> sines,
            absl::Span<float> head);

}  // namespace millrace::backends

#endif  // MILLRACE_BACKENDS_DECODER_ROPE_H_
