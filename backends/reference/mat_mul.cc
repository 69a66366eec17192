#include "backends/reference/mat_mul.h"

#include <algorithm>
#include <cstddef>

#include "backends/reference/lanes.h"
#include "backends/reference/parallel.h"

namespace millrace::backends::reference {
namespace {

// The tokens of a batch in groups of 16, the token index innermost: lane l of
// values[g * inputs + i] is input i of token 16 g + l. Lanes beyond the last
// token are zero.
struct Tokens {
  int rows;
  int inputs;
  std::vector<Lanes> values;

  int groups() const { return (rows + kLanes - 1) / kLanes; }
  const Lanes* group(int g) const {
    return &values[static_cast<size_t>(g) * inputs];
  }
};

Tokens TokensInnermost(absl::Span<const float> in, int rows, int inputs) {
  Tokens tokens{rows, inputs, {}};
  tokens.values.resize(static_cast<size_t>(tokens.groups()) * inputs, Lanes{});
  for (int t = 0; t < rows; ++t) {
    Lanes* group = &tokens.values[static_cast<size_t>(t / kLanes) * inputs];
    for (int i = 0; i < inputs; ++i) {
      group[i][t % kLanes] = in[static_cast<size_t>(t) * inputs + i];
    }
  }
  return tokens;
}

// The sums of `Outputs` outputs from `first` and `Groups` groups from `g`: a
// tile that stays in registers while the inputs pass by.
template <int Outputs, int Groups>
[[gnu::always_inline]] inline void Tile(const Matrix& weights,
                                        const Tokens& tokens, int first, int g,
                                        absl::Span<float> out) {
  const int inputs = weights.inputs;
  const float* weight = &weights.values[static_cast<size_t>(first) * inputs];
  const Lanes* token = tokens.group(g);
  Lanes sums[Outputs][Groups] = {};
  for (int i = 0; i < inputs; ++i) {
    for (int o = 0; o < Outputs; ++o) {
      for (int k = 0; k < Groups; ++k) {
        sums[o][k] += weight[static_cast<size_t>(o) * inputs + i] *
                      token[static_cast<size_t>(k) * inputs + i];
      }
    }
  }
  const int begin = g * kLanes;
  const int end = std::min(tokens.rows, begin + Groups * kLanes);
  for (int t = begin; t < end; ++t) {
    for (int o = 0; o < Outputs; ++o) {
      out[static_cast<size_t>(t) * weights.outputs + first + o] =
          sums[o][(t - begin) / kLanes][(t - begin) % kLanes];
    }
  }
}

// All tokens of the outputs begin <= o < end, in tiles of at most four outputs
// by `Groups` groups.
template <int Groups>
[[gnu::always_inline]] inline void Outputs(const Matrix& weights,
                                           const Tokens& tokens, int begin,
                                           int end, absl::Span<float> out) {
  int o = begin;
  for (; o + 4 <= end; o += 4) {
    int g = 0;
    for (; g + Groups <= tokens.groups(); g += Groups) {
      Tile<4, Groups>(weights, tokens, o, g, out);
    }
    for (; g < tokens.groups(); ++g) Tile<4, 1>(weights, tokens, o, g, out);
  }
  for (; o < end; ++o) {
    for (int g = 0; g < tokens.groups(); ++g) {
      Tile<1, 1>(weights, tokens, o, g, out);
    }
  }
}

using OutputsFunction = void (*)(const Matrix&, const Tokens&, int, int,
                                 absl::Span<float>);

void PlainOutputs(const Matrix& weights, const Tokens& tokens, int begin,
                  int end, absl::Span<float> out) {
  Outputs<1>(weights, tokens, begin, end, out);
}

#ifdef __x86_64__
// The same code compiled for wider registers; products are rounded before they
// are added in each (-ffp-contract=off), so all three give the same bits.
[[gnu::target("avx2")]] void Avx2Outputs(const Matrix& weights,
                                         const Tokens& tokens, int begin,
                                         int end, absl::Span<float> out) {
  Outputs<1>(weights, tokens, begin, end, out);
}

[[gnu::target("avx512f")]] void Avx512Outputs(const Matrix& weights,
                                              const Tokens& tokens, int begin,
                                              int end, absl::Span<float> out) {
  Outputs<4>(weights, tokens, begin, end, out);
}

OutputsFunction Widest() {
  if (__builtin_cpu_supports("avx512f")) return Avx512Outputs;
  if (__builtin_cpu_supports("avx2")) return Avx2Outputs;
  return PlainOutputs;
}
#else
OutputsFunction Widest() { return PlainOutputs; }
#endif

}  // namespace

void MatMul(const Matrix& weights, absl::Span<const float> in, int rows,
            int num_threads, absl::Span<float> out) {
  static const OutputsFunction outputs = Widest();
  const Tokens tokens = TokensInnermost(in, rows, weights.inputs);
  Parallel(weights.outputs, num_threads, [&](int begin, int end) {
    outputs(weights, tokens, begin, end, out);
  });
}

}  // namespace millrace::backends::reference
