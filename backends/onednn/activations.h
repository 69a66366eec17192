// The inputs of a matrix product: rows of a step, quantised for quantised
// weights, as floats for float weights.
#ifndef MILLRACE_BACKENDS_ONEDNN_ACTIVATIONS_H_
#define MILLRACE_BACKENDS_ONEDNN_ACTIVATIONS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "backends/onednn/kernels/kernels.h"
#include "backends/onednn/memory_region.h"

namespace millrace::backends::onednn {

// Rows are written by different threads at once, then read by all.
class Activations {
 public:
  Activations() = default;
  // RESOURCE_EXHAUSTED if there is no memory.
  static absl::StatusOr<Activations> Create(int max_rows, int max_inputs);
  // Bytes of an object of that size.
  static int64_t Bytes(int max_rows, int max_inputs);

  // Says what is to come: `rows` rows of `inputs` values, 1 <= rows <=
  // max_rows. Forgets what was there.
  void Reset(int rows, int inputs);

  int rows() const { return rows_; }

  // A row of floats: `inputs` values to write, zeros behind up to a multiple
  // of 16. Rows are consecutive.
  float* row(int t) { return values_ + static_cast<int64_t>(t) * cols_; }
  const float* row(int t) const {
    return values_ + static_cast<int64_t>(t) * cols_;
  }

  // Quantises row t, as written by row(t), in blocks of 32.
  // REQUIRES: inputs is a multiple of 32.
  void Quantise(const Kernels& kernels, int t);

  // The panel of kPanelTokens tokens (or of the only one) that begins at row t.
  QuantisedPanel panel(int t) const;

 private:
  MemoryRegion memory_;
  int max_rows_ = 0, max_inputs_ = 0;
  int rows_ = 0, inputs_ = 0, cols_ = 0, width_ = 1;
  float* values_ = nullptr;     // [rows][cols]
  int8_t* quants_ = nullptr;    // of panels
  float* scales_ = nullptr;     // d
  float* sums_ = nullptr;       // s
  int32_t* offsets_ = nullptr;  // c
};

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_ACTIVATIONS_H_
