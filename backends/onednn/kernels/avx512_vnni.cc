// AVX-512 with VNNI: vpdpbusd adds four products of unsigned and signed bytes
// to a 32-bit sum in one instruction, vpdpwssd two of 16-bit numbers.
#include <immintrin.h>

#include "backends/onednn/kernels/kernels.h"

namespace millrace::backends::onednn {
namespace {

struct Bfloat16;

#include "backends/onednn/kernels/avx512_isa.inl.h"
#include "backends/onednn/kernels/rows.inl.h"

struct Isa : Avx512Base {
  static constexpr bool kBytesNeedOffset = true;

  static P AddPairs(P sum, P x, P y) {
    return (P)_mm512_dpwssd_epi32((I)sum, (I)x, (I)y);
  }

  struct Sum {
    I sum;

    void StartAtZero() { sum = _mm512_setzero_si512(); }
    void StartAt(int32_t c) { sum = _mm512_set1_epi32(c); }
    void AddNibbles(I w, const int8_t* q) { AddBytes(w, q); }
    void AddBytes(I w, const int8_t* q) {
      sum = _mm512_dpbusd_epi32(sum, w, Broadcast4(q));
    }
    I Total() const { return sum; }
  };
};

#include "backends/onednn/kernels/attention.inl.h"
#include "backends/onednn/kernels/float.inl.h"
#include "backends/onednn/kernels/quantised.inl.h"
#include "backends/onednn/kernels/rebase.inl.h"
#include "backends/onednn/kernels/table.inl.h"

}  // namespace

constinit const Kernels kAvx512VnniKernels = MakeKernels("avx512_vnni");

}  // namespace millrace::backends::onednn
