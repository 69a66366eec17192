// Matrix products of float weights, kept as rows. Each sum is made in sixteen
// parts, part l of the inputs l, l + 16, ..., added by halves at the end. Few
// tokens are bound by memory; for many, ../float_gemm.h is faster.

// A value of two bytes that is a bfloat16, not a half.
struct Bfloat16 {
  uint16_t bits;
};

constexpr int kParts = 16 / Isa::kLanes;

template <class T, int R, int NT>
inline void DotRows(const T* weights, int cols, const float* x, float* out,
                    ptrdiff_t stride) {
  Isa::F acc[R][NT][kParts] = {};
  for (int k = 0; k < cols; k += Isa::kLanes * kParts) {
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      const int at = k + part * Isa::kLanes;
      Isa::F value[NT];
#pragma GCC unroll 8
      for (int t = 0; t < NT; ++t) value[t] = Isa::Load(x + t * cols + at);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Isa::F w = Isa::Load(weights + r * cols + at);
#pragma GCC unroll 8
        for (int t = 0; t < NT; ++t) {
          acc[r][t][part] = Isa::Fma(w, value[t], acc[r][t][part]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < NT; ++t) {
      float parts[16];
      for (int part = 0; part < kParts; ++part) {
        Isa::Store(parts + part * Isa::kLanes, acc[r][t][part]);
      }
      out[t * stride + r] = Sum16(Load16(parts));
    }
  }
}

template <class T, int NT>
inline void DotPass(const T* weights, int outputs, int cols, const float* x,
                    int tokens, float* out, ptrdiff_t stride) {
  if constexpr (NT > 1) {
    if (tokens < NT) {
      return DotPass<T, NT - 1>(weights, outputs, cols, x, tokens, out, stride);
    }
  }
  for (int r = 0; r < outputs; r += 4) {
    DotRows<T, 4, NT>(weights + static_cast<ptrdiff_t>(r) * cols, cols, x,
                      out + r, stride);
  }
}

template <class T>
void FloatRows(const void* weights, int outputs, int cols, const float* x,
               int tokens, float* out, ptrdiff_t stride) {
  for (int t = 0; t < tokens; t += 4) {
    DotPass<T, 4>(static_cast<const T*>(weights), outputs, cols,
                  x + static_cast<ptrdiff_t>(t) * cols, tokens - t,
                  out + t * stride, stride);
  }
}
