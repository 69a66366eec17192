// The matrix product of the reference backend.
#ifndef MILLRACE_BACKENDS_REFERENCE_MAT_MUL_H_
#define MILLRACE_BACKENDS_REFERENCE_MAT_MUL_H_

#include <vector>

#include "absl/types/span.h"

namespace millrace::backends::reference {

// A weight matrix in float, row-major.
struct Matrix {
  int outputs = 0;
  int inputs = 0;
  std::vector<float> values;  // [outputs][inputs]
};

// out[t][o] = sum over i, ascending, of weights[o][i] * in[t][i].
//
// Each sum is made in one float, in the order of the formula, whatever `rows`
// is: tokens are the vector lanes, so a row's result never depends on the
// others. The work is cut among `num_threads` threads by outputs, which changes
// no sum either.
// REQUIRES: in is [rows][inputs], out is [rows][outputs]; num_threads >= 1.
void MatMul(const Matrix& weights, absl::Span<const float> in, int rows,
            int num_threads, absl::Span<float> out);

}  // namespace millrace::backends::reference

#endif  // MILLRACE_BACKENDS_REFERENCE_MAT_MUL_H_
