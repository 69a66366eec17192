// The inner loops of the CPU backend, one table of functions per instruction
// set. Every table computes the same thing:
//
//   matrix products of quantised weights, row norms, quantisation, activations
//   and attention to keys and values of 8 bits give the same bits in every
//   table, so that tests compare them exactly; attention to floats and products
//   of float weights agree within rounding.
//
// A function never looks at more than the row (token) and the outputs it is
// asked for: no result depends on batch mates or on how work is divided.
//
// This header has no inline functions on purpose: the files that include it
// are compiled for different instruction sets.
#ifndef MILLRACE_BACKENDS_ONEDNN_KERNELS_KERNELS_H_
#define MILLRACE_BACKENDS_ONEDNN_KERNELS_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace millrace::backends::onednn {

// Outputs of one row group: a vector lane per output (packed_matrix.h).
inline constexpr int kGroupRows = 16;

// Tokens that one call of a matrix product takes at most.
inline constexpr int kPanelTokens = 8;

// Positions of one attention segment: partial sums are cut at its multiples.
inline constexpr int kSegmentTokens = 64;
inline constexpr int kSegmentTiles = 4;  // of 16 positions

// Up to kPanelTokens tokens, each quantised in blocks of 32 values:
//
//   x[32 b + i] ~ d * q[i],   d = max|x| / 127,   q in -127 .. 127
//
// A panel is `width` tokens wide (1 or 8) and stores, for token t of it:
//
//   q   [blocks][8][width][4]   int8; values 4 j .. 4 j + 3 of the block at j
//   d   [blocks][width]         the scale
//   s   [blocks][width]         d * sum of q: what a minimum is multiplied by
//   c   [blocks][width]         -128 * sum of q: undoes weights kept as q + 128
struct QuantisedPanel {
  int8_t* q;
  float* d;
  float* s;
  int32_t* c;
  int width;
  bool first;  // of its step: weights that come next are fetched ahead
};

// out[t][r] = sum over k of weight[r][k] * x[t][k] for the 16 outputs r of one
// packed row group and tokens t < tokens. Blocks of 32 ascending, each one
// fused multiply-add (two with a minimum) on the exact integer sum.
// `out` is [tokens] rows of 16, `out_stride` floats apart.
using QuantisedProduct = void (*)(const uint8_t* group, int blocks,
                                  const QuantisedPanel& x, int tokens,
                                  float* out, ptrdiff_t out_stride);

// out[t][r] = sum over k of weight[r][k] * x[t][k], r < outputs, t < tokens.
// Rows of weights are `cols` values of the stored type, rows of x `cols`
// floats; cols is a multiple of 16. Sixteen partial sums, k ascending.
using FloatProduct = void (*)(const void* weights, int outputs, int cols,
                              const float* x, int tokens, float* out,
                              ptrdiff_t out_stride);

// What scores are computed of: n rows of head_dim. Keys of 8 bits are
// multiplied by `rounded`, other keys by `floats`; the one that is not read may
// be null.
struct AttentionQueries {
  const float* floats;
  const int16_t* rounded;  // floats ~ scales[i] * rounded, as round_query says
  const float* scales;
  int n;
};

// scores[i][16 j + p] = sum over d of query i times keys[j][d][p] for the tiles
// begin <= j < end of the four of a segment. Tiles are [head_dim][16], and
// 8-bit ones are followed by the scales of their tokens, 16 floats; `next_keys`
// are those of the segment that comes next, to be fetched ahead; null: none.
using AttentionScores = void (*)(const AttentionQueries& queries, int head_dim,
                                 const void* const* keys, int begin, int end,
                                 const void* const* next_keys, float* scores);

// out[i][d] = sum over positions first <= p < last of
// probabilities[i][p] * values[p / 16][p % 16][d], p ascending. Tiles are
// [16][head_dim], 8-bit ones followed by scales, by which probabilities are
// multiplied and then rounded to 16 bits, a query's largest to 32,767;
// `next_values` are fetched ahead.
using AttentionValues = void (*)(const float* probabilities, int num_queries,
                                 int head_dim, const void* const* values,
                                 int first, int last,
                                 const void* const* next_values, float* out);

// The positions first .. last - 1 of a segment; first >= last: none.
struct SeenPositions {
  int first, last;
};

// What a query has seen: exponentials of scores, less the largest, times
// values.
struct AttentionPart {
  float* out;  // [n][head_dim]
  float* max;  // [n] the largest scores
  float* sum;  // [n] of the exponentials
};

// out[d][p] = number d of key p, turned back by leads[p] positions: pairs of
// neighbours by the phases leads[p] * steps[d / 2] of 2^64 a turn. `keys` is a
// tile as scores read it, `out` one of floats. `next_keys` is the tile of the
// next segment, to be fetched ahead; null: none.
using RebaseKeys = void (*)(const void* keys, const uint64_t* leads,
                            const uint64_t* steps, int head_dim,
                            const void* next_keys, float* out);

struct Kernels {
  const char* name;  // "avx512_vnni"

  QuantisedProduct q4_0;
  QuantisedProduct q4_1;
  QuantisedProduct q8_0;

  FloatProduct f32;
  FloatProduct f16;
  FloatProduct bf16;

  // out[i] = in[i] / sqrt(mean of squares + epsilon) * weight[i].
  void (*rms_norm)(const float* in, const float* weight, int n, float epsilon,
                   float* out);

  // Quantises `blocks` * 32 values into token `t` of the panel.
  void (*quantise)(const float* in, int blocks, int t,
                   const QuantisedPanel& panel);

  // gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)).
  // n is a multiple of 16.
  void (*silu_mul)(float* gate, const float* up, int n);

  // out[i] = (in[i] * cosines[i] + in[i ^ 1] * sines[i]) * scale: a rotation of
  // neighbouring pairs if both members of a pair have its cosine, the first
  // minus its sine and the second its sine. n is a multiple of 16.
  void (*rotate)(const float* in, const float* cosines, const float* sines,
                 float scale, int n, float* out);

  // Rounds a query for keys of 8 bits: out = in / scale, the largest of them
  // 32,767, or 16,383 if n is above 512, so that n products fit in 32 bits.
  // Returns the scale: NaN if a number is none or infinite. n is a multiple of
  // 16, at most 1,024.
  float (*round_query)(const float* in, int n, int16_t* out);

  // What n queries see of a segment's scores, [n][64]: turns them into
  // exp(score - max) of the query, what is not seen into 0. Returns max and the
  // sums of the exponentials; -infinity and 0 of a query that sees nothing.
  // Scores that are not seen may be anything.
  void (*softmax)(float* scores, const SeenPositions* seen, int n, float* max,
                  float* sum);

  // Adds partial results of n queries to accumulated ones, in place: (out, max,
  // sum) <- both, rescaled to the larger maximum. Rows of `part` and `out` have
  // `head_dim` values. A maximum of -infinity: there is nothing yet, and `out`
  // and `sum` are 0; or nothing to add, whatever `part` holds.
  void (*merge)(const AttentionPart& part, int n, int head_dim,
                const AttentionPart& to);

  AttentionScores scores_f32;
  AttentionScores scores_f16;
  AttentionScores scores_bf16;
  AttentionScores scores_int8;
  AttentionValues values_f32;
  AttentionValues values_f16;
  AttentionValues values_bf16;
  AttentionValues values_int8;

  RebaseKeys rebase_f32;
  RebaseKeys rebase_f16;
  RebaseKeys rebase_bf16;
  RebaseKeys rebase_int8;

  // sums[i] += weight * sum over h < heads of
  // factors[h] * probabilities[64 h + i], h ascending, for i < n <= 64.
  void (*add_probabilities)(const float* probabilities, const float* factors,
                            int heads, float weight, int n, float* sums);

  // Half precision and bfloat16, to nearest even; NaN stays NaN. n is a
  // multiple of 16.
  void (*to_f16)(const float* in, int n, uint16_t* out);
  void (*to_bf16)(const float* in, int n, uint16_t* out);

  // A key or a value in 8 bits and their scale, by the definition of
  // backends/quant/scaled_int8.h. n is a multiple of 16.
  float (*to_int8)(const float* in, int n, int8_t* out);

  // Stored 16-bit floats as floats. n is a multiple of 16.
  void (*widen_f16)(const uint16_t* in, int64_t n, float* out);
  void (*widen_bf16)(const uint16_t* in, int64_t n, float* out);
};

// The tables. Calling a function of one needs a CPU that has its instructions.
extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512VnniKernels;

}  // namespace millrace::backends::onednn

#endif  // MILLRACE_BACKENDS_ONEDNN_KERNELS_KERNELS_H_
