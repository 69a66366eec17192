// Weight matrices in the form that the kernels read.
//
// Outputs are taken in groups of 16, a vector lane each, zero rows added at the
// end. Quantised groups are tiles of 16 outputs x 32 inputs, in the order of
// inputs, so that a group is read front to back:
//
//   Q4_1   tile of 320 bytes
//     0     half d[16]           scales of the 16 outputs
//     32    half m[16]           minima
//     64    nibbles[4][16][4]    at [j][r][i]: low nibble input 4 j + i,
//                                high nibble input 16 + 4 j + i
//   Q4_0   pair of tiles, 576 bytes: half d[2][16], nibbles[2][4][16][4]
//   Q8_0   pair of tiles, 1088 bytes: half d[2][16], bytes[2][8][16][4] of
//          q + 128, at [j][r][i] input 4 j + i
//
// Everything starts at a cache line. The nibbles of a row keep the order of the
// file: a 32-bit word of a block moves as a whole. Float groups are plain rows,
// padded with zeros to a multiple of 16 inputs.
#ifndef MILLRACE_BACKENDS_ONEDNN_PACKED_MATRIX_H_
#define MILLRACE_BACKENDS_ONEDNN_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "backends/model_file/model_file.h"
#include "backends/onednn/kernels/kernels.h"
#include "backends/quant/weight_type.h"

namespace millrace::backends::onednn {

constexpr int RoundUp16(int n) { return (n + 15) / 16 * 16; }

constexpr bool IsQuantised(WeightType type) {
  return type == WeightType::kQ8_0 || type == WeightType::kQ4_0 ||
         type == WeightType::kQ4_1;
}

// A matrix somewhere in packed memory. Cheap to copy; thread-safe.
struct PackedMatrix {
  WeightType type = WeightType::kF32;
  int outputs = 0;
  int inputs = 0;
  const uint8_t* data = nullptr;
  // From one group of 16 outputs to the next: more than a group's bytes if two
  // matrices lie interleaved.
  ptrdiff_t group_stride = 0;

  bool quantised() const { return IsQuantised(type); }
  int groups() const { return (outputs + kGroupRows - 1) / kGroupRows; }
  int blocks() const { return inputs / 32; }      // of a quantised row
  int cols() const { return RoundUp16(inputs); }  // of a float row
  const uint8_t* group(int g) const { return data + g * group_stride; }
};

// Bytes of one packed group; a multiple of 64.
int64_t GroupBytes(WeightType type, int64_t inputs);

// Writes a tensor's groups to `to`, `group_stride` bytes apart.
// REQUIRES: the memory is zero and aligned to 64 bytes.
PackedMatrix Pack(const TensorView& tensor, uint8_t* to,
                  ptrdiff_t group_stride);

// Writes the row of the matrix as floats, exactly as quant/dequantize.h would.
// REQUIRES: out has `inputs` values.
void UnpackRow(const PackedMatrix& matrix, int row, absl::Span<float> out);

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_PACKED_MATRIX_H_
