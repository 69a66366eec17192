#include "backends/onednn/activations.h"

#include <algorithm>
#include <utility>

#include "backends/onednn/packed_matrix.h"

namespace millrace::backends::onednn {
namespace {

// Rows in whole panels, values in whole cache lines.
struct Shape {
  int64_t rows, cols, blocks;

  Shape(int max_rows, int max_inputs)
      : rows((max_rows + kPanelTokens - 1) / kPanelTokens * kPanelTokens),
        cols((max_inputs + 63) / 64 * 64),
        blocks((max_inputs + 31) / 32) {}

  int64_t values() const { return rows * cols; }
  int64_t numbers() const { return (rows * blocks + 15) / 16 * 16; }
};

}  // namespace

int64_t Activations::Bytes(int max_rows, int max_inputs) {
  const Shape shape(max_rows, max_inputs);
  return 5 * shape.values() + 12 * shape.numbers();
}

absl::StatusOr<Activations> Activations::Create(int max_rows, int max_inputs) {
  const Shape shape(max_rows, max_inputs);
  absl::StatusOr<MemoryRegion> memory =
      MemoryRegion::Map(Bytes(max_rows, max_inputs), "activations");
  if (!memory.ok()) return memory.status();
  Activations made;
  made.memory_ = *std::move(memory);
  made.max_rows_ = max_rows;
  made.max_inputs_ = max_inputs;
  made.values_ = reinterpret_cast<float*>(made.memory_.data());
  made.scales_ = made.values_ + shape.values();
  made.sums_ = made.scales_ + shape.numbers();
  made.offsets_ = reinterpret_cast<int32_t*>(made.sums_ + shape.numbers());
  made.quants_ = reinterpret_cast<int8_t*>(made.offsets_ + shape.numbers());
  return made;
}

void Activations::Reset(int rows, int inputs) {
  rows_ = rows;
  inputs_ = inputs;
  cols_ = RoundUp16(inputs);
  width_ = rows == 1 ? 1 : kPanelTokens;
  for (int t = 0; t < rows && cols_ != inputs; ++t) {
    std::fill(row(t) + inputs, row(t) + cols_, 0.0f);
  }
}

void Activations::Quantise(const Kernels& kernels, int t) {
  kernels.quantise(row(t), inputs_ / 32, t % width_,
                   panel(t / width_ * width_));
}

QuantisedPanel Activations::panel(int t) const {
  const int64_t at = static_cast<int64_t>(t) * (inputs_ / 32);
  return {quants_ + 32 * at, scales_ + at, sums_ + at,
          offsets_ + at,     width_,       t == 0};
}

}  // namespace millrace::backends::onednn
